"""How the functions of the beam search are compiled: kept on disk, and run outside Python's lock.

Large tuples of arrays are handed from Python to one compiled function per utterance; within loops and between compiled
functions every array has a name of its own, or the whole tuple would be copied and its references counted each time.
"""

from __future__ import annotations

from typing import Any

from numba import njit

_njit: Any = njit  # compiled functions return numpy's numbers, whatever their annotations say

kernel: Any = _njit(nogil=True, cache=True)
inlined: Any = _njit(nogil=True, cache=True, inline="always")
