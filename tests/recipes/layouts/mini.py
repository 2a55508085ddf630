"""The mini recipe makes its own speech."""

from __future__ import annotations

from pathlib import Path

import pytest


def make(folder: Path) -> list[str]:
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install -e '.[demo]'")
    return ["--utterances", "8"]
