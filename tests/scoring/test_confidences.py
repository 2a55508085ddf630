"""Words judged by hand; quality, bins and doubtful words; the normalized cross entropy against sclite's."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import pytest

from asr.scoring.breakdown import WordConfidences, pooled
from asr.scoring.pairing import Line
from asr.scoring.scored import score_set
from asr.types import Word


def recognized(name, *words):
    times = tuple(Word(word, 0.3 * k, 0.3 * k + 0.2, confidence) for k, (word, confidence) in enumerate(words))
    return Line(name, " ".join(word for word, _ in words), words=times)


def test_words_are_right_where_the_reference_has_them():
    heard = [
        recognized("1", ("The", 0.1), ("Twenty-one", 0.2), ("cat", 0.3), ("sat", 0.4)),
        recognized("2"),
        recognized("3", ("b", 0.5)),
        Line("4", "a"),
    ]
    lines = [Line("1", "the twenty two cats sat down"), Line("2", "a"), Line("3", ""), Line("4", "a")]
    found = score_set(lines, heard, "basic").word_confidences
    assert found[0] == WordConfidences((0.1, 0.2, 0.2, 0.3, 0.4), (True, True, False, False, True))
    assert found[1:] == (WordConfidences(), WordConfidences((0.5,), (False,)), None)
    assert pooled(found).correct == (True, True, False, False, True, False)
    assert score_set(lines[3:], heard[3:], "basic").confidences is None


def test_words_of_another_text_are_not_taken_for_the_hypothesis():
    line = Line("1", "a b", words=(Word("a", 0.0, 0.1, 0.9),))
    assert score_set([Line("1", "a b")], [line], "none").word_confidences == (None,)


def test_quality_bins_and_doubtful_words_by_hand():
    words = WordConfidences((0.10, 0.12, 0.90, 1.0, 1.0), (False, True, True, True, False))
    figures = words.quality()
    # fifteenths: 0.10 and 0.12 in the second, 0.9 in the fourteenth, 1.0 in the last
    assert words.bins() == [(pytest.approx(0.11), 0.5, 2), (0.9, 1.0, 1), (1.0, 0.5, 2)]
    assert figures["expected_calibration_error"] == pytest.approx((2 * 0.39 + 0.1 + 2 * 0.5) / 5, abs=1e-5)
    assert (figures["words"], figures["right"], figures["mean_confidence"]) == (5, 0.6, 0.624)
    assert words.below(0.9) == (2, 1)
    assert WordConfidences((0.5,), (True,)).quality()["normalized_cross_entropy"] is None


@pytest.mark.skipif(shutil.which("sctk") is None, reason="sclite is not installed (Debian: apt-get install sctk)")
def test_the_normalized_cross_entropy_is_sclites(tmp_path):
    generator = random.Random(3)
    lines, heard = [], []
    for i in range(80):
        reference = [generator.choice("abcdefgh") for _ in range(generator.randint(2, 12))]
        words = []
        for word in reference:
            draw = generator.random()
            right = draw > 0.25
            if draw > 0.05:
                word = word if right else generator.choice("xyz")
                words.append((word, round(generator.betavariate(5, 2) if right else generator.betavariate(2, 3), 3)))
            if generator.random() < 0.05:
                words.append(("w", 0.3))
        lines.append(Line(f"u{i:02d}", " ".join(reference), speaker=f"s{i % 4}", duration=10.0))
        heard.append(recognized(f"u{i:02d}", *words))
    scored = score_set(lines, heard, "none")
    assert scored.sclite_counts[:, 1:].sum() == scored.words.counts.errors  # else the alignments differ
    scored.write(tmp_path)
    command = ["sctk", "sclite", "-s", "-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm", "-o", "sum", "stdout"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "NCE" in out
    rows = {m[1]: float(m[2]) for m in re.finditer(r"\|\s*(s\d|Sum/Avg)\s*\|.*?(-?\d\.\d+)\s*\|\n", out)}
    assert sorted(rows) == ["Sum/Avg", "s0", "s1", "s2", "s3"]
    for name, theirs in rows.items():  # of two decimals
        chosen = [
            j for line, j in zip(lines, scored.word_confidences, strict=True) if name in ("Sum/Avg", line.speaker)
        ]
        assert pooled(chosen).quality()["normalized_cross_entropy"] == pytest.approx(theirs, abs=0.0051)
