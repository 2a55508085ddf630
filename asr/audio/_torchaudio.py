"""The only module that imports torchaudio: with its native part if that loads, otherwise without it.

The PyPI wheel of torchaudio is linked against one CUDA version. With a CPU-only torch, or a torch built for another
CUDA version, `import torchaudio` itself raises, although everything used here (mel filter banks, masks, resampling,
data sets) is pure Python. In that case the package is imported a second time as if built without its extension.
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
    """Import torchaudio; return the module and why its native part is missing ('' if it is there)."""
    if importlib.util.find_spec("torch") is None:
        raise AsrError("torch is not installed: pip install 'torch>=2.11' 'torchaudio>=2.11' (see 'asr doctor')")
    started = sys.modules.get("torchaudio")
    if started is not None and not hasattr(started, "transforms"):  # an earlier import of it stopped halfway
        _forget()
    try:
        module = _import_parts()
    except (OSError, ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "torchaudio":
            raise AsrError("torchaudio is not installed: pip install 'torchaudio>=2.11' (see 'asr doctor')") from error
        return _import_without_native(error)
    if getattr(getattr(module, "_extension", None), "_IS_TORCHAUDIO_EXT_AVAILABLE", False):
        return module, ""
    return module, getattr(module, "_asr_native_reason", "this build of torchaudio has no native part")


def _import_without_native(failure: BaseException) -> tuple[ModuleType, str]:
    """Import torchaudio's Python part after the plain import raised `failure`.

    torchaudio/_extension/__init__.py calls `_load_lib` from its sibling utils.py to find out whether there are
    libraries to load. A fresh copy of utils.py, with a `_load_lib` that says no, is put in place while the package is
    imported; the function is restored afterwards.
    """
    reason = _reason(failure)
    before = _forget()  # modules that the failed import left behind
    try:
        utils = _fresh_utils()
        load_library = utils._load_lib
        utils._load_lib = lambda lib: False  # type: ignore[attr-defined]
        sys.modules[_UTILS] = utils
        try:
            module = _import_parts()
        finally:
            utils._load_lib = load_library  # type: ignore[attr-defined]
    except Exception as error:
        _forget()
        sys.modules.update(before)
        raise AsrError(
            f"torchaudio is installed but cannot be imported ({reason}; then {_reason(error)}): "
            "pip install --force-reinstall 'torchaudio==2.11.*', see 'asr doctor'"
        ) from failure
    module._extension.utils, module._extension._load_lib = utils, load_library  # as after a plain import
    module._asr_native_reason = reason  # type: ignore[attr-defined]  # for a reload of this module
    return module, reason


def _import_parts() -> ModuleType:
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
        importlib.import_module(name)
    return sys.modules["torchaudio"]


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


def _forget() -> dict[str, ModuleType]:
    """Remove torchaudio and its submodules from the imported modules, and return them."""
    names = [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]
    return {name: sys.modules.pop(name) for name in names}


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
