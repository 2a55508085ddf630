"""AN4: python recipes/an4/run.py [--archive an4_raw.bigendian.tar.gz] [--output DIR] [key=value ...]"""

from __future__ import annotations

import sys
from pathlib import Path

import prepare

from asr.recipe.run import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, prepare))
