"""Error rates with counts and confidence intervals, and tests of whether one system is better than another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.scoring.comparison import Comparison, compare
    from asr.scoring.edits import EditCounts, Score, score

__all__ = ["Comparison", "EditCounts", "Score", "compare", "score"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asr.scoring import comparison, edits

    return getattr(comparison if name in ("Comparison", "compare") else edits, name)
