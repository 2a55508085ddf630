"""Keeps the compiled beam search on disk in step with its source, and says before it is compiled: once, then kept."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

SECONDS = 30  # on the machine it was written on

_STAMP = "beam-search.sources"
_COMPILED = (  # the modules whose code ends up in one another
    "beam_batch",
    "beam_kernel",
    "beam_kernel_pieces",
    "beam_steps",
    "emissions_kernel",
    "finish",
    "frame_labels",
    "instructions",
    "kernels",
    "lexicon",
    "ngram_kernel",
    "piece_steps",
    "search_arrays",
    "word_kernel",
)
_lock = threading.Lock()
_ready = False


def announce() -> None:
    """To be called before the compiled search; the line on stderr comes at most once per process."""
    global _ready
    if _ready:
        return
    with _lock:
        if not _ready:
            _ready = True
            if not _is_kept():
                print(f"asr: compiling the beam search, once (about {SECONDS} s)", file=sys.stderr, flush=True)


def _is_kept() -> bool:
    """Whether numba has kept the kernel from an earlier run of the same source.

    numba compares only the file of the function itself, and would go on with code that another file has changed: what
    was kept is forgotten when any of them has. Where a numba keeps things otherwise, nothing is said and done.
    """
    from asr.decoding.beam.kernel import advance_characters

    try:
        cache: Any = advance_characters._cache
        folder = Path(cache.cache_path)
        sources = [Path(__file__).with_name(f"{name}.py") for name in _COMPILED]
        digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
        stamp = folder / _STAMP
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != digest:
            for kept in folder.glob("*.nbi"):
                if any(kept.name.startswith(f"{source.stem}.") for source in sources):
                    kept.unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            stamp.write_text(digest, encoding="utf-8")
            return False
        return bool(cache._cache_file._load_index())
    except Exception:  # numba's own parts, or a folder that cannot be written
        return True
