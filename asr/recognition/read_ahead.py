"""Work that runs ahead in threads: results in order, while only a bounded amount of them is waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Item], Result],
    *,
    cost: Callable[[Result], float],
    limit: float,
    workers: int = 1,
) -> Iterator[Result]:
    """Yield `read(item)` for every item, in order, computed by `workers` threads ahead of the consumer.

    No new item is begun while results of a total `cost` of `limit` or more are waiting to be taken, so at most
    `limit` and one item per worker are held. What `read` or the iterable raises is raised here, in its place.
    """
    queue = _Ahead(items, read, cost, limit)
    threads = [threading.Thread(target=queue.work, daemon=True) for _ in range(max(1, workers))]
    for thread in threads:
        thread.start()
    try:
        index = 0
        while queue.wait_for(index):
            yield queue.take(index)
            index += 1
    finally:
        queue.stop()


class _Ahead(Generic[Item, Result]):
    # Items are begun in order. So if the next result wanted has not been begun, none after it has, nothing is waiting,
    # and some worker is free to begin it: the limit cannot lock up.

    def __init__(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Result],
        cost: Callable[[Result], float],
        limit: float,
    ) -> None:
        self._items = iter(items)
        self._read = read
        self._cost = cost
        self._limit = limit
        self._changed = threading.Condition()
        self._ready: dict[int, tuple[Result, float]] = {}
        self._failed: dict[int, BaseException] = {}
        self._waiting = 0.0
        self._begun = 0
        self._stopped = False  # no further item will be begun

    def work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._ready or self._waiting < self._limit)
                if self._stopped:
                    return
                index = self._begun
                try:
                    item = next(self._items)
                except StopIteration:
                    self._stopped = True
                except BaseException as error:
                    self._failed[index] = error
                    self._begun += 1
                    self._stopped = True
                else:
                    self._begun += 1
                if self._stopped:
                    self._changed.notify_all()
                    return
            try:
                result = self._read(item)
                price = self._cost(result)
            except BaseException as error:
                with self._changed:
                    self._failed[index] = error
                    self._stopped = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready[index] = (result, price)
                self._waiting += price
                self._changed.notify_all()

    def wait_for(self, index: int) -> bool:
        """Wait until result `index` can be taken; False when there is none."""
        with self._changed:
            while index not in self._ready and index not in self._failed:
                if self._stopped and index >= self._begun:
                    return False
                self._changed.wait(0.5)  # with a timeout Ctrl-C gets through on every platform
            return True

    def take(self, index: int) -> Result:
        with self._changed:
            if index in self._failed:
                raise self._failed[index]
            result, price = self._ready.pop(index)
            self._waiting -= price
            self._changed.notify_all()
            return result

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
