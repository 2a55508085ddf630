"""Groups and word counts add up to the whole; comparisons name the winner."""

from __future__ import annotations

import random
import statistics

import jiwer
import pytest

from asr.scoring import compare, score
from asr.scoring.breakdown import by_duration, by_length, by_name, confusions, group_table, ranked, spread, text_table
from asr.scoring.comparison import p_text
from asr.scoring.edits import EditCounts, align_texts
from asr.scoring.pairing import Line
from asr.scoring.scored import score_set


def texts(count, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choice("abcdef") for _ in range(generator.randint(0, 9))) for _ in range(count)]


def test_a_thousand_random_pairs_equal_jiwer():
    references, hypotheses = texts(1000, 1), texts(1000, 2)
    words = jiwer.process_words(references, hypotheses)
    ours = score(references, hypotheses)
    assert sum(1 for text in references if not text) > 50
    assert ours.wer == pytest.approx(words.wer)
    assert ours.counts.errors == words.substitutions + words.deletions + words.insertions
    for reference, hypothesis, counts in zip(references, hypotheses, ours.utterances, strict=True):
        one = jiwer.process_words(reference, hypothesis)
        assert counts.errors == one.substitutions + one.deletions + one.insertions


def test_groups_partition_the_utterances():
    references, hypotheses = texts(200, 3), texts(200, 4)
    counts = score(references, hypotheses).utterances
    durations = [None if i % 10 == 9 else 0.4 * i for i in range(200)]
    names = [["ann", "bob", ""][i % 3] for i in range(200)]
    total = sum(counts, EditCounts())
    for groups in (by_name(counts, names), by_duration(counts, durations), by_length(counts)):
        assert sum((group.counts for group in groups), EditCounts()) == total
        assert sum(len(group.utterances) for group in groups) == 200
        assert all(group.interval[0] <= group.rate <= group.interval[1] for group in groups)
    assert [group.name for group in by_name(counts, names)] == ["ann", "bob", "(unknown)"]
    named = by_duration(counts, durations)
    assert [g.name for g in named] == [
        "below 2 s", "2-5 s", "5-10 s", "10-15 s", "15-20 s", "20-30 s", "30 s and more", "(unknown)"
    ]  # fmt: skip
    assert named[0].seconds == pytest.approx(0.4 * (1 + 2 + 3 + 4))
    assert len(named[1].utterances) == sum(1 for d in durations if d is not None and 2.0 <= d < 5.0)
    assert [group.name for group in by_length(counts)] == ["0 words", "1-2 words", "3-5 words", "6-10 words"]


def test_the_spread_of_speakers_is_that_of_their_rates_beside_what_chance_gives():
    generator = random.Random(5)

    def groups(rates, utterances=20):
        counts, names = [], []
        for name, rate in rates.items():
            for _ in range(utterances):
                errors = sum(generator.random() < rate for _ in range(10))
                counts.append(EditCounts(errors, 0, 0, 10 - errors, 10))
                names.append(name)
        return by_name(counts, names)

    different = spread(groups({"ann": 0.5, "bob": 0.1, "cat": 0.3, "": 0.9}))
    assert [group.name for group in different.groups] == ["ann", "cat", "bob"]  # the unknown are no speaker
    assert different.deviation == pytest.approx(statistics.stdev(g.rate for g in different.groups))
    assert 0.02 < different.chance < 0.045 < different.deviation  # sqrt(0.2 * 0.8 / 200) is 0.028
    assert different.text().startswith("3 speakers: WER ") and "fewer" not in different.text()
    assert different.summary()["worst"] == ["ann", "cat", "bob"] and different.summary()["below_100_words"] == 0
    alike = spread(groups({f"s{i:02d}": 0.3 for i in range(40)}, 4))
    assert alike.chance == pytest.approx(alike.deviation, rel=0.3)
    assert "; all have fewer than 100 words" in alike.text()
    assert spread(groups({"ann": 0.2, "bob": 0.4}, 1)).chance is None  # nothing to tell chance by
    assert spread(groups({"ann": 0.2, "": 0.4})) is None


def test_confusions_are_counted_by_word_and_add_up():
    references, hypotheses = ["a b c", "a b", "", "the cat"], ["a x c", "a", "oh no", "the cat sat"]
    split = [[text.split() for text in side] for side in (references, hypotheses)]
    found = confusions(*split, align_texts(references, hypotheses))
    assert ranked(found.substituted) == [(("b", "x"), 1)]
    assert ranked(found.deleted) == [("b", 1)]
    assert ranked(found.inserted, 2) == [("no", 1), ("oh", 1)]


def test_a_long_table_shows_the_groups_with_most_errors_and_says_so():
    counts = score(["a"] * 30, ["b" if i in (3, 17) else "a" for i in range(30)]).utterances
    table = group_table("speaker", by_name(counts, [f"s{i:02d}" for i in range(30)]), limit=2)
    assert [row.split()[0] for row in table.splitlines()] == ["speaker", "s03", "s17", "..."]
    assert "28 more" in table


def test_columns_are_as_wide_as_their_cells():
    text = text_table(["name", "WER", "sub"], [["a", "12.00%", "3"], ["longer", "1.00%", "12345"]])
    assert text.splitlines() == ["name       WER    sub", "a       12.00%      3", "longer   1.00%  12345"]
    assert text_table(["a", "b"], [["x", ""]], left=2) == "a  b\nx"


def test_a_scored_set_says_what_makes_it_doubtful_and_writes_alignments(tmp_path):
    lines = [Line("u1", "A b c d e f g h i", speaker="x"), Line("u2", "", speaker="y")]
    recognized = [Line("u1", "a, x c e f g h i j"), Line("u2", None)]
    scored = score_set(lines, recognized, "basic", characters=True)
    assert scored.normalizer == "basic@2"
    assert scored.words.counts == EditCounts(1, 1, 1, 7, 9)
    assert any("1 of 2 references are empty" in w for w in scored.warnings)
    assert any("2 speakers are known, too few" in w for w in scored.warnings)
    assert scored.alignment_text(0) == (
        "id: (u1)\nScores: (#C #S #D #I) 7 1 1 1\n"
        "REF:  a b c d e f g h i *\nHYP:  a x c * e f g h i j\nEval:   S   D           I\n\n"
    )
    summary = scored.summary()
    assert summary["sclite"] == {
        "snt": 2, "wrd": 9, "corr": 7, "sub": 1, "del": 1, "ins": 1, "err": 3, "s_err": 1
    }  # fmt: skip
    assert [group["name"] for group in summary["speakers"]] == ["x", "y"]
    scored.write(tmp_path)
    assert (tmp_path / "hyp.trn").read_text(encoding="utf-8") == "a x c e f g h i j (u1)\n (u2)\n"


def test_compare_names_the_better_system():
    references = ["a b c d e f g h i j"] * 200
    good = ["a b c d e f g h i j" if i % 4 else "a b c d e f g h i x" for i in range(200)]
    bad = [text if i % 3 else text.replace("c d", "x y") for i, text in enumerate(good)]
    result = compare(references, bad, good)
    assert result.difference == pytest.approx(result.b.wer - result.a.wer)
    assert result.interval[0] < result.difference < result.interval[1] < 0
    assert result.significant
    assert result.verdict().startswith("B is better: -6.70 % absolute [-")
    assert result.verdict().endswith("p < 0.001")
    assert compare(references, good, bad).verdict().startswith("B is worse: +6.70 % absolute [+")
    assert compare(references, good, good).verdict() == "A and B make equally many errors in every utterance"
    noise = [t.replace("e", "z") if i in (5, 9) else t for i, t in enumerate(good)]
    other = [t.replace("f", "z") if i == 14 else t for i, t in enumerate(good)]
    assert compare(references, noise, other).verdict().startswith("no significant difference: B is at -0.05 %")
    summary = result.summary()
    assert (summary["wins"], summary["losses"], summary["ties"]) == (67, 0, 133)
    assert summary["relative"] == pytest.approx(result.difference / result.a.wer)
    assert compare(references, bad, good, "char").matched is None
    assert compare(references, bad, good, speakers=[str(i % 20) for i in range(200)]).interval_units == "speakers"
    with pytest.raises(ValueError, match="references but"):
        compare(references, bad[1:], good)


def test_p_is_printed_with_three_decimals_or_as_a_bound():
    assert [p_text(0.0004), p_text(0.0312), p_text(0.0041, bounded=True)] == ["p < 0.001", "p = 0.031", "p < 0.005"]
