"""Says, before it happens, that the beam search is being compiled: once after installation, then it is kept on disk."""

from __future__ import annotations

import sys
import threading

SECONDS = 40  # on a slow machine

_lock = threading.Lock()
_said = False


def announce() -> None:
    """One line on stderr where the compiled search is not kept from an earlier run; at most once per process."""
    global _said
    if _said:
        return
    with _lock:
        if not _said:
            _said = True
            if not _is_kept():
                print(f"asr: compiling the beam search, once (about {SECONDS} s)", file=sys.stderr, flush=True)


def _is_kept() -> bool:
    """Whether numba's cache holds the kernel; True where a numba without this inside part does not tell."""
    from asr.decoding.beam_kernel import advance_characters

    try:
        return bool(advance_characters._cache._cache_file._load_index())
    except Exception:
        return True
