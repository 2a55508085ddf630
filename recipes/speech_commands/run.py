"""The recipe in this folder, in one command: see README.md, or --help."""

from __future__ import annotations

import sys
from pathlib import Path

import prepare

from asr.recipe.run import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, prepare))
