"""Compiling functions with numba: without Python's global lock, and cached on disk until a source file changes.

Every compiled function of the package goes through `compiled`. Python passes large tuples of arrays to one compiled
function per utterance. In loops and between compiled functions, every array has a name of its own, because numba would
otherwise copy the whole tuple and count its references each time.
"""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>[\w.]+)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n]*)|import[ \t]+(?P<plain>[^\n]*))",
    re.MULTILINE,
)
_printed: set[str] = set()


def compiled(announced: str = "", keep: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: numba's `njit` with `options`, and the machine code cached on disk.

    The cache is where numba would put it (NUMBA_CACHE_DIR, beside the source, the user's cache folder), else in a
    private folder among the temporary files; if none of these can be written, every process compiles again. It is valid
    as long as the file of the function and all files of the package that it imports are unchanged; numba would check
    only the file of the function, and miss an edit in a function inlined from another file. `announced` is printed on
    stderr before the function is compiled. Without `keep`, nothing is cached.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = njit(nogil=True, **options)(function)
        if keep:
            dispatcher._cache = _LazyCache(function, announced)
            dispatcher.compile = partial(_compile, dispatcher)
        return dispatcher

    return decorate


def _compile(dispatcher: Any, signature: Any) -> Any:
    """numba's `compile` with rarer cyclic garbage collection, which took an eighth of the time."""
    with global_compiler_lock:  # so that no other thread restores the thresholds in between
        thresholds = gc.get_threshold()
        gc.set_threshold(100_000, *thresholds[1:])
        try:
            return type(dispatcher).compile(dispatcher, signature)
        finally:
            gc.set_threshold(*thresholds)


# Functions that only compiled code calls need no wrapper for Python, and are cached only as part of their callers. The
# wrapper of a function with the arrays of a search takes half a second to compile, because it unpacks all of them.
INTERNAL: dict[str, Any] = {"keep": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Most of the beam search allocates nothing. It is compiled without reference counts, so that passing on a tuple of
# arrays is free, and divides as numpy does, without a check for zero. This makes it smaller, faster, and faster to
# compile. Callees inherit "no reference counts" in numba, so functions that do allocate must be marked as such.
_BARE: dict[str, Any] = {"error_model": "numpy", "_nrt": False}

kernel: Any = compiled()
bare_kernel: Any = compiled(**_BARE)
allocating_kernel: Any = compiled(error_model="numpy", _nrt=True)
internal: Any = compiled(**_BARE, **INTERNAL)
allocating_internal: Any = compiled(error_model="numpy", _nrt=True, **INTERNAL)
# LLVM inlines `embedded` functions. numba copies `inlined` ones into the source of each caller before types are known,
# which takes much longer: this is only for small functions and for those with constant arguments that select branches.
embedded: Any = compiled(forceinline=True, **_BARE, **INTERNAL)
inlined: Any = compiled(inline="always", **INTERNAL)
_SEARCH = "the beam search, once (about 15 s)"
search_kernel: Any = compiled(announced=_SEARCH, **_BARE)
kept_internal: Any = compiled(announced=_SEARCH, **_BARE, **INTERNAL | {"keep": True})  # large, with several callers


def source_files(path: Path, package: Path) -> list[Path]:
    """A file and all files of its package (a folder) that it imports, directly or indirectly, sorted."""
    files, todo = {path}, [path]
    while todo:
        for name in _read(todo.pop())[1]:
            top, *parts = name.split(".")
            if top != package.name:
                continue
            module = package.joinpath(*parts)
            for file in (module.with_suffix(".py"), module / "__init__.py"):
                if file not in files and file.is_file():
                    files.add(file)
                    todo.append(file)
    return sorted(files)


def source_digest(path: Path, package: Path) -> str:
    """A digest of the contents of `source_files`. Raises OSError if one cannot be read."""
    digests = "".join(_read(file)[0] for file in source_files(path, package))
    return hashlib.sha256(digests.encode("ascii")).hexdigest()


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a source file, and the modules that it may import: `from a import b` may mean the module a.b.

    Every start of the program does this, so imports are found by a pattern, in a hundredth of the time of parsing.
    """
    content = path.read_bytes()
    names: list[str] = []
    for match in _IMPORT.finditer(content.decode("utf-8", "replace")):
        if match["base"]:
            names.append(match["base"])
            names += [f"{match['base']}.{name}" for name in re.findall(r"\w+", match["names"])]
        else:
            names += re.findall(r"[\w.]+", match["plain"])
    return hashlib.sha256(content).hexdigest(), tuple(names)


class _LazyCache:
    """A function's machine code on disk, for numba's dispatcher: a `caching.FunctionCache` made when first needed.

    numba's own cache would search for a writable folder during the import of the module. A compiled function works
    without its cache, so failures here are never errors.
    """

    def __init__(self, function: Callable[..., Any], announced: str) -> None:
        self._function = function
        self._announced = announced

    @cached_property
    def _files(self) -> Any:
        try:
            files = _FunctionCache(self._function)
            package = Path(str(sys.modules[self._function.__module__.partition(".")[0]].__file__)).parent
            digest = source_digest(Path(self._function.__code__.co_filename), package)
            files._cache_file = _IndexAndData(files.cache_path, files._impl.filename_base, digest)
        except (RuntimeError, OSError):  # numba's "no locator available"; an unreadable source file
            return caching.NullCache()
        return files

    @property
    def cache_path(self) -> str | None:
        return self._files.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            code = self._files.load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file may raise anything
            code = None
            with suppress(OSError):
                self.flush()
        if code is None:
            self._announce()
        return code

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            self._files.save_overload(sig, data)
        except Exception as error:  # a full disk, a folder that has become read-only
            reason = (isinstance(error, OSError) and error.strerror) or error
            _say(f"warning: cannot save compiled code in {self.cache_path} ({reason}): every run compiles it again")

    def flush(self) -> None:
        self._files.flush()

    def _announce(self) -> None:
        """Print that the function is being compiled, and warn if the code cannot be saved in a usual place."""
        folder = self.cache_path
        given = os.environ.get("NUMBA_CACHE_DIR")
        places = f"NUMBA_CACHE_DIR ({given})" if given else "the package's folder"
        cost = "code is compiled again (the beam search: about 15 s). Set NUMBA_CACHE_DIR to a writable folder"
        if folder is None:
            _say(f"warning: neither {places}, your home nor a temporary folder is writable: in every run {cost}")
        elif isinstance(self._files._impl.locator, _TemporaryLocator):
            _say(
                f"warning: neither {places} nor your home is writable: compiled code is in "
                f"{Path(folder).parent}; once that is gone, {cost}"
            )
        if self._announced:
            _say(f"compiling {self._announced if folder else self._announced.replace(', once', '')}")


class _TemporaryLocator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):
    """Puts compiled code in `_private_folder`."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._lineno = function.__code__.co_firstlineno
        self._cache_path = str(Path(_private_folder() or "") / self.get_suitable_cache_subpath(file))

    def get_cache_path(self) -> str:
        return self._cache_path

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Any:
        return super().from_function(function, file) if _private_folder() else None


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = (*caching.CacheImpl._locator_classes, _TemporaryLocator)


class _FunctionCache(caching.FunctionCache):
    _impl_class = _Implementation


class _IndexAndData(caching.IndexDataCacheFile):
    """numba's two files for a function, index and code, with the source stamp and a checksum added to the code.

    numba writes the index first: if the process is killed or the disk is full before it writes the code, or if two
    processes write at once, the index refers to the code of another source or signature. Damaged machine code would
    crash the process.
    """

    def save(self, key: Any, data: Any) -> None:
        content = self._dump((self._source_stamp, key, data))
        super().save(key, (hashlib.sha256(content).digest(), content))

    def load(self, key: Any) -> Any:
        stored = super().load(key)
        if stored is None or len(stored) != 2 or hashlib.sha256(stored[1]).digest() != stored[0]:
            return None
        stamp, stored_key, data = pickle.loads(stored[1])
        return data if (stamp, stored_key) == (self._source_stamp, key) else None


def _private_folder() -> Path | None:
    """A folder among the temporary files that only this user can write; None if there is none.

    Others can guess its name and create it first. It is therefore used only if it belongs to the user with mode 0700,
    is not a link, and is in a folder where others cannot replace it.
    """
    if not hasattr(os, "geteuid"):
        return None
    try:
        above = Path(tempfile.gettempdir())
        mode = above.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            return None
        folder = above / f"asr-compiled-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
    return folder if own else None


def _say(message: str) -> None:
    """Print a line on stderr, once per process."""
    if message not in _printed:
        _printed.add(message)
        if sys.stderr is not None:
            print(f"asr: {message}", file=sys.stderr, flush=True)
