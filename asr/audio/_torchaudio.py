"""The only module that imports torchaudio: with its native part where that loads, else without it.

The PyPI wheel of torchaudio is linked against one CUDA version. Beside a CPU-only torch, or a torch built for
another CUDA, `import torchaudio` itself raises, although everything used here (mel filter banks, masks,
resampling, data sets) is plain Python. In that case the package is imported a second time with its extension
marked as not there, the state it has where it was built without one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from asr.types import AsrError

_UTILS = "torchaudio._extension.utils"


def _import_torchaudio() -> tuple[ModuleType, str]:
    """Import torchaudio; returns the module and why its native part is not there ('' when it is)."""
    if importlib.util.find_spec("torch") is None:
        raise AsrError("torch is not installed: pip install 'torch>=2.11' 'torchaudio>=2.11' (see 'asr doctor')")
    there = sys.modules.get("torchaudio")
    if there is not None and not hasattr(there, "transforms"):  # somebody's import of it stopped half-way
        for name in _loaded_parts():
            del sys.modules[name]
    try:
        module = importlib.import_module("torchaudio")
        importlib.import_module("torchaudio.functional")
        importlib.import_module("torchaudio.transforms")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "torchaudio":
            raise AsrError("torchaudio is not installed: pip install 'torchaudio>=2.11' (see 'asr doctor')") from error
        return _import_without_native(error)
    except (OSError, ImportError, RuntimeError) as error:
        return _import_without_native(error)
    extension = getattr(module, "_extension", None)
    if getattr(extension, "_IS_TORCHAUDIO_EXT_AVAILABLE", False):
        return module, ""
    return module, getattr(module, "_asr_native_reason", "this build of torchaudio has no native part")


def _import_without_native(failure: BaseException) -> tuple[ModuleType, str]:
    """Import torchaudio's Python part after the plain import raised `failure`.

    torchaudio/_extension/__init__.py asks `_load_lib` from its sibling utils.py whether there are libraries
    to load. A fresh copy of utils.py whose `_load_lib` says no is put in place while the package is
    imported, and made whole afterwards.
    """
    reason = _reason(failure)
    before = _loaded_parts()
    for name in before:  # what a failed import, ours or somebody else's, left behind
        del sys.modules[name]
    try:
        utils = _fresh_utils()
        load_library = utils._load_lib
        utils._load_lib = lambda lib: False  # type: ignore[attr-defined]
        sys.modules[_UTILS] = utils
        try:
            module = importlib.import_module("torchaudio")
            importlib.import_module("torchaudio.functional")
            importlib.import_module("torchaudio.transforms")
        finally:
            utils._load_lib = load_library  # type: ignore[attr-defined]
    except Exception as error:
        for name in _loaded_parts():
            del sys.modules[name]
        sys.modules.update(before)
        raise AsrError(
            f"torchaudio is installed but cannot be imported ({reason}; then {_reason(error)}): "
            "pip install --force-reinstall 'torchaudio==2.11.*', see 'asr doctor'"
        ) from failure
    extension = module._extension
    extension.utils, extension._load_lib = utils, load_library  # as after a plain import
    module._asr_native_reason = reason  # type: ignore[attr-defined]  # for a reload of this module
    return module, reason


def _fresh_utils() -> ModuleType:
    package = importlib.util.find_spec("torchaudio")
    if package is None or not package.submodule_search_locations:
        raise ImportError("torchaudio is not a package on this path")
    path = Path(package.submodule_search_locations[0]) / "_extension" / "utils.py"
    spec = importlib.util.spec_from_file_location(_UTILS, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{path} is missing")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    return utils


def _loaded_parts() -> dict[str, ModuleType]:
    return {name: m for name, m in sys.modules.items() if name == "torchaudio" or name.startswith("torchaudio.")}


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: the loader says more than torch's 'Could not load this library'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


torchaudio, unavailable_reason = _import_torchaudio()
native_available: bool = not unavailable_reason
functional = torchaudio.functional
transforms = torchaudio.transforms
version: str = getattr(torchaudio, "__version__", "") or importlib.metadata.version("torchaudio")

__all__ = ["functional", "native_available", "torchaudio", "transforms", "unavailable_reason", "version"]
