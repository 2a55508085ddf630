"""Is B really better than A: two systems on the same utterances, with an interval, p-values, and who won where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from asr.scoring.edits import Edit, Score, Unit, align_texts, count
from asr.scoring.significance import Difference, MatchedPairs, blocks, matched_pairs, paired_bootstrap

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same references. Differences are B's minus A's: negative where B is better.

    `matched` is None for characters, for which the test was not made. `reworded` are the utterances whose references
    leave a choice that fell differently for the two.
    """

    a: Score
    b: Score
    alignments_a: tuple[list[Edit], ...]
    alignments_b: tuple[list[Edit], ...]
    reworded: frozenset[int] = frozenset()

    @cached_property
    def _bootstrap(self) -> tuple[Difference, str]:
        units, name = blocks(
            np.concatenate([self.a.errors_and_lengths, self.b.errors_and_lengths], axis=1), self.a.speakers
        )
        return paired_bootstrap(units[:, 0], units[:, 2], units[:, 1], units[:, 3]), name

    @property
    def bootstrap(self) -> Difference:
        """The difference of the rates with its paired-bootstrap interval and p, over speakers where known."""
        return self._bootstrap[0]

    @property
    def interval_units(self) -> str:
        """What was resampled: "speakers" or "utterances"."""
        return self._bootstrap[1]

    @cached_property
    def matched(self) -> MatchedPairs | None:
        return matched_pairs(self.alignments_a, self.alignments_b, self.reworded) if self.a.unit == "word" else None

    @property
    def difference(self) -> float:
        return self.bootstrap.value

    @property
    def interval(self) -> tuple[float, float]:
        return self.bootstrap.interval

    @property
    def p(self) -> float:
        return self.bootstrap.p

    @cached_property
    def gains(self) -> np.ndarray:
        """Errors of A minus errors of B in each utterance: positive where B wins, (utterances,) int64."""
        gains: np.ndarray = self.a.errors_and_lengths[:, 0] - self.b.errors_and_lengths[:, 0]
        return gains

    @property
    def significant(self) -> bool:
        low, high = self.interval
        return self.p < SIGNIFICANT and not low <= 0.0 <= high

    def verdict(self, name_a: str = "A", name_b: str = "B") -> str:
        """ "B is better: -0.8 % absolute [-1.2, -0.4], p = 0.001", or that the difference may be chance."""
        low, high = (100.0 * limit for limit in self.interval)
        p = p_text(self.p, self.bootstrap.bounded)
        figures = f"{100.0 * self.difference:+.2f} % absolute [{low:+.2f}, {high:+.2f}], {p}"
        if not self.gains.any():
            return f"{name_a} and {name_b} make equally many errors in every utterance"
        if self.significant:
            return f"{name_b} is {'better' if self.difference < 0 else 'worse'}: {figures}"
        return f"no significant difference: {name_b} is at {figures}"

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        return {
            "difference": self.difference,
            "interval_95": list(self.interval),
            "interval_over": self.interval_units,
            "p": self.p,
            "significant": self.significant,
            "relative": self.difference / self.a.rate if self.a.rate else None,
            "matched_pairs": self.matched
            and {
                "segments": self.matched.segments,
                "mean": self.matched.mean,
                "z": self.matched.z if np.isfinite(self.matched.z) else None,
                "p": self.matched.p,
            },
            "wins": int((self.gains > 0).sum()),
            "losses": int((self.gains < 0).sum()),
            "ties": int((self.gains == 0).sum()),
        }


def compare(
    references: Sequence[str],
    hypotheses_a: Sequence[str],
    hypotheses_b: Sequence[str],
    unit: Unit = "word",
    *,
    speakers: Sequence[str] = (),
    references_b: Sequence[str] | None = None,
) -> Comparison:
    """Compare two systems' hypotheses of the same references; nothing is normalized here.

    With `speakers`, one per utterance, the interval is over speakers. `references_b` are the wordings for B where the
    references leave a choice. Raises ValueError when lists differ in length.
    """
    others = references if references_b is None else references_b
    alignments_a = tuple(align_texts(references, hypotheses_a, unit))
    alignments_b = tuple(align_texts(others, hypotheses_b, unit))
    reworded = frozenset(i for i, (ours, other) in enumerate(zip(references, others, strict=True)) if ours != other)
    return Comparison(
        count(alignments_a, unit, speakers), count(alignments_b, unit, speakers), alignments_a, alignments_b, reworded
    )


def p_text(p: float, bounded: bool = False) -> str:
    """ "p = 0.013", or "p < 0.001"; with `bounded` p is an upper bound."""
    if p < 0.001:
        return "p < 0.001"
    return f"p < {p + 0.0005:.3f}" if bounded else f"p = {p:.3f}"
