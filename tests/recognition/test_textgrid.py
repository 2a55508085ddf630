"""TextGrids read back by the rules of Praat's manual: tiers without gaps or overlaps, quotes doubled."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from asr.recognition.writers import textgrid
from asr.types import Transcript, Word


def parsed(text):
    """{tier: [(xmin, xmax, text)]} of a TextGrid in the long text format."""
    tiers = {}
    for part in re.split(r"^    item \[\d+\]:$", text, flags=re.M)[1:]:
        name = re.search(r'name = "((?:[^"]|"")*)"', part)[1]
        found = re.findall(r'xmin = (\S+)\s+xmax = (\S+)\s+text = "((?:[^"]|"")*)"', part)
        assert f"intervals: size = {len(found)}\n" in part
        tiers[name] = [(float(a), float(b), label.replace('""', '"')) for a, b, label in found]
    assert f"size = {len(tiers)}\n" in text
    return tiers


def test_words_and_what_lies_between():
    words = (Word("the", 0.1, 0.25, 1.0), Word('"cat"', 0.25, 0.9, 0.5))
    text = textgrid(Transcript('the "cat"', words, 1.5))
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1.5\n')
    assert parsed(text) == {
        "words": [(0.0, 0.1, ""), (0.1, 0.25, "the"), (0.25, 0.9, '"cat"'), (0.9, 1.5, "")],
    }
    assert parsed(textgrid(Transcript("", (), 1.5))) == {"words": [(0.0, 1.5, "")]}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.floats(1e-8, 2)), max_size=20), st.floats(0.01, 5))
def test_intervals_meet_exactly(gaps_and_lengths, rest):
    words, at = [], 0.0
    for gap, length in gaps_and_lengths:
        words.append(Word("w", at + gap, at + gap + length, 1.0))
        at += gap + length
    intervals = parsed(textgrid(Transcript("w", tuple(words), at + rest)))["words"]
    assert intervals[0][0] == 0.0
    assert all(before[1] == after[0] for before, after in pairwise(intervals))
    assert all(start < end for start, end, _ in intervals)


def test_a_transcript_has_a_tier_of_words_and_aligned_ones_of_tokens_too():
    words = (Word("hi", 0.0, 0.5, 1.0),)
    plain = Transcript("hi", words, 1.0)
    assert list(parsed(textgrid(plain))) == ["words"]
    aligned = Transcript("hi", words, 1.0, tokens=(Word("h", 0.0, 0.2, 1.0), Word("i", 0.2, 0.5, 1.0)))
    assert list(parsed(textgrid(aligned))) == ["words", "tokens"]
