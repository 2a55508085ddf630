"""How good is it: error rates with counts and intervals, and whether one system is better than another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.scoring.comparison import Comparison, compare
    from asr.scoring.edits import EditCounts, Score, score

__all__ = ["Comparison", "EditCounts", "Score", "compare", "score"]


def __getattr__(name: str) -> Any:
    if name in ("EditCounts", "Score", "score"):
        from asr.scoring import edits

        return getattr(edits, name)
    if name in ("Comparison", "compare"):
        from asr.scoring import comparison

        return getattr(comparison, name)
    raise AttributeError(f"module 'asr.scoring' has no attribute '{name}'")
