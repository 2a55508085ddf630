"""How good is it: error rates with counts and intervals."""

from asr.scoring.edits import EditCounts, Score, score

__all__ = ["EditCounts", "Score", "score"]
