"""How functions are compiled: by numba, outside Python's lock, and kept on disk while their source is the same.

Every compiled function of the package goes through `compiled`. Large tuples of arrays are handed from Python to one
compiled function per utterance; within loops and between compiled functions every array has a name of its own, or the
whole tuple would be copied and its references counted each time.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>[\w.]+)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n]*)|import[ \t]+(?P<plain>[^\n]*))",
    re.MULTILINE,
)
_said: set[str] = set()


def compiled(announced: str = "", **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba's `njit` with `options`, the machine code kept on disk.

    It is kept where numba would (NUMBA_CACHE_DIR, beside the source, in the user's cache folder), else in a private
    folder among the temporary files; where nothing can be written, it is compiled in every process. What is kept is
    used while the file of the function and all files of the package that it imports are unchanged: numba would look at
    the file of the function alone. `announced` is said on stderr before the function is compiled.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = njit(nogil=True, **options)(function)
        dispatcher._cache = _Kept(function, announced)
        return dispatcher

    return decorate


kernel: Any = compiled()
inlined: Any = compiled(inline="always")
search_kernel: Any = compiled(announced="the beam search, once (about 30 s)")


def source_files(path: Path, package: Path) -> list[Path]:
    """A file and all files of its package (the folder) that it imports, directly or not, by name."""
    found, todo = {path}, [path]
    while todo:
        for name in _read(todo.pop())[1]:
            top, *parts = name.split(".")
            if top != package.name:
                continue
            place = package.joinpath(*parts)
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file not in found and file.is_file():
                    found.add(file)
                    todo.append(file)
    return sorted(found)


def source_digest(path: Path, package: Path) -> str:
    """A digest of the contents of `source_files`. Raises OSError where one cannot be read."""
    digests = "".join(_read(file)[0] for file in source_files(path, package))
    return hashlib.sha256(digests.encode("ascii")).hexdigest()


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a source file and the modules that it may import; a name from a module may be a module, too."""
    content = path.read_bytes()
    names: list[str] = []
    for match in _IMPORT.finditer(content.decode("utf-8", "replace")):
        if match["base"]:
            names.append(match["base"])
            names += [f"{match['base']}.{name}" for name in re.findall(r"\w+", match["names"])]
        else:
            names += re.findall(r"[\w.]+", match["plain"])
    return hashlib.sha256(content).hexdigest(), tuple(names)


class _Kept(caching._Cache):  # type: ignore[misc, unused-ignore]
    """A function's machine code on disk. Looks for its folder when it is first asked, not when the module is imported.

    A compiled function works with or without what is kept: nothing that goes wrong here is an error.
    """

    def __init__(self, function: Callable[..., Any], announced: str) -> None:
        self._function = function
        self._announced = announced

    @cached_property
    def _files(self) -> Any:
        try:
            return _Files(self._function)
        except (RuntimeError, OSError):  # numba's "no locator available"; a source that cannot be read
            return caching.NullCache()

    @property
    def cache_path(self) -> str | None:
        return self._files.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = self._files.load_overload(sig, target_context)
        except Exception:  # a damaged file: there is nothing that unpickling it may not raise
            found = None
            with suppress(OSError):
                self.flush()
        if found is None:
            self._announce()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            self._files.save_overload(sig, data)
        except Exception as error:  # a full disk, a folder that has become read-only
            reason = (isinstance(error, OSError) and error.strerror) or error
            _say(f"warning: compiled code cannot be kept in {self.cache_path} ({reason}): every run compiles it again")

    def enable(self) -> None:
        self._files.enable()

    def disable(self) -> None:
        self._files.disable()

    def flush(self) -> None:
        self._files.flush()

    def _announce(self) -> None:
        """Say that the function is compiled now, and what it costs that it cannot be kept as usual."""
        folder = self.cache_path
        if folder is None:
            _say(
                "warning: no folder can be written to keep compiled code in: every run compiles it again (the beam "
                "search: about 30 s). Set NUMBA_CACHE_DIR to a folder that you can write"
            )
        elif isinstance(self._files.locator, _TemporaryLocator):
            _say(
                f"warning: compiled code is kept in {Path(folder).parent}, as neither the package's folder nor your "
                "home can be written: once that is emptied, it is compiled again (the beam search: about 30 s). Set "
                "NUMBA_CACHE_DIR to a folder that lasts"
            )
        if self._announced:
            _say(f"compiling {self._announced if folder else self._announced.replace(', once', '')}")


class _TemporaryLocator(caching.UserWideCacheLocator):  # type: ignore[misc, unused-ignore]
    """Keeps compiled code in `private_folder`."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(Path(private_folder() or "") / self.get_suitable_cache_subpath(file))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Any:
        return super().from_function(function, file) if private_folder() else None


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc, unused-ignore]
    _locator_classes = (*caching.CacheImpl._locator_classes, _TemporaryLocator)


class _Files(caching.FunctionCache):  # type: ignore[misc, unused-ignore]
    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        package = Path(str(sys.modules[function.__module__.partition(".")[0]].__file__)).parent
        digest = source_digest(Path(function.__code__.co_filename), package)
        self._cache_file = _IndexAndData(self.cache_path, self._impl.filename_base, digest)

    @property
    def locator(self) -> Any:
        return self._impl.locator


class _IndexAndData(caching.IndexDataCacheFile):  # type: ignore[misc, unused-ignore]
    """numba's two files of a function, index and code; the code knows, too, what it was compiled from.

    numba writes the index first. A kill or a full disk in between, or two processes at once, would make it lead to the
    code of another source or another signature.
    """

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (self._source_stamp, key, data))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        return found[2] if found is not None and found[:2] == (self._source_stamp, key) else None


def private_folder() -> Path | None:
    """A folder among the temporary files that only this user can write; None where there is none.

    Its name is no secret: compiled code is read from it only if it is the user's own with mode 0700, no link, and in a
    folder where others cannot exchange it.
    """
    if not hasattr(os, "geteuid"):
        return None
    try:
        above = Path(tempfile.gettempdir())
        folder = above / f"asr-compiled-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found, around = folder.lstat(), above.stat()
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
    guarded = around.st_mode & stat.S_ISVTX or not around.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if own and guarded else None


def _say(message: str) -> None:
    """One line on stderr, once in a process."""
    if message not in _said:
        _said.add(message)
        if sys.stderr is not None:
            print(f"asr: {message}", file=sys.stderr, flush=True)
