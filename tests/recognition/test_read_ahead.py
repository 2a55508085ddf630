"""Reading ahead: order, bounded waiting, errors in their place, no thread left behind."""

from __future__ import annotations

import threading
import time

import pytest

from asr.recognition.loading import read_ahead


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("limit", [0.5, 3.0, 1000.0])
def test_results_come_in_order_whatever_the_limit(workers, limit):
    def read(i):
        time.sleep(0.002 * (i % 3))
        return i * i

    results = read_ahead(range(30), read, cost=lambda r: float(r % 5), limit=limit, workers=workers)
    assert list(results) == [i * i for i in range(30)]


def test_no_more_than_the_limit_waits():
    begun: list[int] = []

    def read(i):
        begun.append(i)
        return i

    results = read_ahead(range(100), read, cost=lambda r: 1.0, limit=5, workers=2)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(begun) <= 1 + 5 + 2
    results.close()


def test_a_failing_read_is_raised_after_the_results_before_it():
    def read(i):
        if i == 3:
            raise ValueError("bad item")
        return i

    results = read_ahead(range(10), read, cost=lambda r: 1.0, limit=100, workers=3)
    taken = []
    with pytest.raises(ValueError, match="bad item"):
        for result in results:
            taken.append(result)
    assert taken == [0, 1, 2]


def test_a_failing_iterable_is_raised_after_the_results_before_it():
    def items():
        yield 1
        raise OSError("gone")

    results = read_ahead(items(), lambda i: i, cost=lambda r: 1.0, limit=100)
    assert next(results) == 1
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_an_empty_iterable_gives_nothing():
    assert list(read_ahead([], lambda i: i, cost=lambda r: 1.0, limit=1)) == []


def test_threads_end_when_the_consumer_stops_early():
    before = set(threading.enumerate())
    results = read_ahead(iter(int, 1), lambda i: i, cost=lambda r: 1.0, limit=5, workers=3)
    next(results)
    results.close()
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
