"""torchaudio comes in with or without its native part, from any earlier state, and its absence is one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    search = [str(ROOT), *([str(path)] if path else [])]
    lines = f"import sys\nsys.path[:0] = {search[::-1]!r}\n{code}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False, cwd=ROOT)


def test_functional_transforms_and_a_second_import_are_one_package() -> None:
    done = python(
        "from asr.audio import _torchaudio as ours\n"
        "import torchaudio\n"
        "assert torchaudio is ours.torchaudio\n"
        "assert torchaudio.functional is ours.functional and torchaudio.transforms is ours.transforms\n"
        "assert ours.native_available == (not ours.unavailable_reason)\n"
        "assert ours.version[0].isdecimal()\n"
        "assert ours.functional.melscale_fbanks(257, 20.0, 8000.0, 80, 16000).shape == (257, 80)\n"
    )
    assert done.returncode == 0, done.stderr


def test_absent_is_one_line_with_the_way_out() -> None:
    done = python("sys.modules['torchaudio'] = None\nimport asr.audio._torchaudio")
    assert done.stderr.splitlines()[-1] == (
        "asr.types.AsrError: torchaudio is not installed: pip install 'torchaudio>=2.11' (see 'asr doctor')"
    )


def fake_package(root: Path, native: str, functional: str = "resample = 1\n") -> Path:
    """A torchaudio of the shape of 2.11 whose native library does `native` when loaded."""
    package = root / "torchaudio"
    for name in ("_extension", "functional", "transforms"):
        (package / name).mkdir(parents=True)
    sources = {
        "__init__.py": "from . import _extension\nfrom . import functional, transforms\n__version__ = '9.9'\n",
        "_extension/__init__.py": (
            "from .utils import _load_lib\n_IS_TORCHAUDIO_EXT_AVAILABLE = _load_lib('_torchaudio')\n"
        ),
        "_extension/utils.py": f"def _load_lib(lib):\n    {native}\n    return True\n",
        "functional/__init__.py": functional,
        "transforms/__init__.py": "Resample = 1\n",
    }
    for name, text in sources.items():
        (package / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "before",
    [
        "try:\n    import torchaudio\nexcept OSError:\n    pass\n",
        "import types, importlib.util\n"
        "half = types.ModuleType('torchaudio')\n"
        "half.__path__ = importlib.util.find_spec('torchaudio').submodule_search_locations\n"
        "sys.modules['torchaudio'] = half\n",
        "import asr.audio._torchaudio, importlib\nimportlib.reload(asr.audio._torchaudio)\n",
    ],
    ids=["after a plain import", "half imported", "reloaded"],
)
def test_earlier_imports_do_not_matter(tmp_path: Path, before: str) -> None:
    done = python(
        f"{before}from asr.audio import _torchaudio as t\n"
        "import torchaudio, torchaudio.functional\n"
        "print(t.native_available, t.unavailable_reason, torchaudio.functional is t.functional)",
        fake_package(tmp_path, "raise OSError('libcudart.so.13: gone')"),
    )
    assert done.stdout.strip() == "False libcudart.so.13: gone True", done.stderr


@pytest.mark.parametrize(
    "error", ["OSError('libcudart.so.13: gone')", "ImportError('abi')", "RuntimeError('CUDA 13.2')"]
)
def test_a_native_part_that_fails_is_left_out_and_named(tmp_path: Path, error: str) -> None:
    done = python(
        "from asr.audio import _torchaudio as t\n"
        "import torchaudio\n"
        "assert torchaudio._extension._load_lib is torchaudio._extension.utils._load_lib\n"
        "print(t.native_available, t.version, t.unavailable_reason)",
        fake_package(tmp_path, f"raise {error}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"False 9.9 {error.split(chr(39))[1]}"


def test_a_native_part_that_loads_is_used(tmp_path: Path) -> None:
    done = python(
        "from asr.audio import _torchaudio as t\nprint(t.native_available, t.unavailable_reason)",
        fake_package(tmp_path, "pass"),
    )
    assert done.stdout.strip() == "True"


def test_a_broken_python_part_is_one_line_and_leaves_no_trace(tmp_path: Path) -> None:
    done = python(
        "from asr.types import AsrError\n"
        "try:\n    import asr.audio._torchaudio\nexcept AsrError as error:\n    print(error)\n"
        "print([name for name in sys.modules if name.startswith('torchaudio')])",
        fake_package(tmp_path, "raise OSError('libc10_cuda.so')", "raise SyntaxError('bad wheel')\n"),
    )
    message, left = done.stdout.splitlines()
    assert "libc10_cuda.so" in message and "bad wheel" in message and "pip install" in message
    assert "torchaudio.functional" not in left and "'torchaudio'" not in left


def test_in_loading_workers(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Items(Dataset):\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, index):\n"
        "        from asr.audio.features import LogMel\n"
        "        return LogMel()(torch.zeros(1, 800), torch.tensor([800]))[0]\n"
        "if __name__ == '__main__':\n"
        "    print(len(list(DataLoader(Items(), num_workers=1, multiprocessing_context='spawn'))))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr
