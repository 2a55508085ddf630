"""Counts, table and files against NIST's sclite, where Debian's package sctk is installed."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import numpy as np
import pytest

from asr.scoring import compare, score
from asr.scoring.nist_files import has_look_alikes, read_stm, read_trn, stm_line, trn_line
from asr.scoring.pairing import Line, pair
from asr.scoring.sclite import ScliteRow, sclite_counts, sclite_row, sclite_rows, sclite_table
from asr.scoring.scored import normalized_pairs, score_set
from asr.scoring.text_files import read_texts
from asr.types import Word

needs_sclite = pytest.mark.skipif(
    shutil.which("sctk") is None, reason="sclite is not installed (Debian: apt-get install sctk)"
)


def sclite(folder, *options):
    done = subprocess.run(
        ["sctk", "sclite", "-s", *options], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def random_texts(count, seed, longest=14):
    generator = random.Random(seed)
    texts = []
    for _ in range(2 * count):
        words = ["aa", "b", "cc", "d"][: generator.randint(2, 4)]
        texts.append(" ".join(generator.choice(words) for _ in range(generator.randint(0, longest))))
    return texts[:count], texts[count:]


def weighted_cost(reference, hypothesis):
    """The cheapest alignment at sclite's costs, by the textbook recursion."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0] = 3 * np.arange(len(reference) + 1)
    table[0, :] = 3 * np.arange(len(hypothesis) + 1)
    for i in range(1, len(reference) + 1):
        for j in range(1, len(hypothesis) + 1):
            swap = table[i - 1, j - 1] + 4 * (reference[i - 1] != hypothesis[j - 1])
            table[i, j] = min(swap, table[i - 1, j] + 3, table[i, j - 1] + 3)
    return table[-1, -1]


def test_counts_are_those_of_a_cheapest_alignment_at_sclites_costs():
    references, hypotheses = random_texts(200, seed=2)
    counts = sclite_counts(references, hypotheses)
    fewest = score(references, hypotheses).errors_and_lengths[:, 0]
    for reference, hypothesis, (right, swapped, lost, made), few in zip(
        references, hypotheses, counts, fewest, strict=True
    ):
        assert right + swapped + lost == len(reference.split())
        assert right + swapped + made == len(hypothesis.split())
        assert 4 * swapped + 3 * (lost + made) == weighted_cost(reference.split(), hypothesis.split())
        assert swapped + lost + made >= few


def full_table(reference, hypothesis):
    """Correct, substituted, deleted and inserted tokens by every cell of the table: swap, then insert, then delete."""
    above = [(3 * j, 0, 0, 0, j) for j in range(len(hypothesis) + 1)]
    for i, word in enumerate(reference, 1):
        row = [(3 * i, 0, 0, i, 0)]
        for j, other in enumerate(hypothesis, 1):
            same = word == other
            cost, c, s, d, k = above[j - 1]
            swap = (cost + 4 * (not same), 0, (c + same, s + (not same), d, k))
            cost, c, s, d, k = row[j - 1]
            insert = (cost + 3, 1, (c, s, d, k + 1))
            cost, c, s, d, k = above[j]
            delete = (cost + 3, 2, (c, s, d + 1, k))
            best = min(swap, insert, delete)
            row.append((best[0], *best[2]))
        above = row
    return list(above[-1][1:])


def far_apart(count, seed, longest):
    """Pairs whose best alignment leaves a narrow band: blocks lost, made up, replaced, moved; few words, or none."""
    generator = random.Random(seed)
    pairs = [("a b " * 60, "b a " * 50), ("a " * 90, "a " * 30 + "b " * 70), ("", "a b"), ("a b", ""), ("", "")]
    pairs += [("a " * 40 + "b " * 40, "b " * 40 + "a " * 40), ("a b c d " * 25, "x y z " * 40)]
    for _ in range(count):
        vocabulary = [f"w{i}" for i in range(generator.choice([1, 2, 3, 8, 100]))]
        reference = generator.choices(vocabulary, k=generator.randint(0, longest))
        hypothesis = list(reference)
        for _ in range(generator.randint(0, 4)):
            at, length = generator.randrange(len(hypothesis) + 1), generator.randint(1, 50)
            new = generator.choices([*vocabulary, "new"], k=length)
            change = generator.choice(["lose", "add", "replace", "turn"])
            if change == "turn":
                hypothesis = hypothesis[at:] + hypothesis[:at]
            else:
                hypothesis[at : at + length * (change != "add")] = [] if change == "lose" else new
        pairs.append((" ".join(reference), " ".join(hypothesis)))
    return [list(texts) for texts in zip(*pairs, strict=True)]


def test_the_band_gives_what_the_full_table_gives():
    """Kind: an exact answer from a part of the table; every choice among equal alignments is the same."""
    references, hypotheses = far_apart(150, seed=6, longest=110)
    expected = [full_table(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    assert sclite_counts(references, hypotheses).tolist() == expected


def test_a_line_of_two_hundred_thousand_words_is_counted():
    """Kind: work with the square of a line's length; the full table would take minutes."""
    words = [f"w{i}" for i in range(200_000)]
    heard = [word for i, word in enumerate(words) if not 1000 <= i < 1700]
    heard[::50] = ["x"] * len(heard[::50])
    heard[5000:5000] = [f"y{i}" for i in range(300)]
    swapped = len(range(0, 199_300, 50))
    counts = sclite_counts([" ".join(words)], [" ".join(heard)])
    assert counts.tolist() == [[199_300 - swapped, swapped, 700, 300]]
    nothing = " ".join(f"z{word}" for word in words)
    assert sclite_counts([" ".join(words)], [nothing]).tolist() == [[0, 200_000, 0, 0]]


def test_five_swaps_are_dearer_than_three_deletions_and_insertions():
    """Where sclite's number of errors is not the smallest: 6 where 5 would do."""
    counts = sclite_counts(["a b c d e"], ["d e x y z"])
    assert counts.tolist() == [[2, 0, 3, 3]]
    assert score(["a b c d e"], ["d e x y z"]).counts.errors == 5
    scored = score_set([Line("u", "a b c d e")], [Line("u", "d e x y z")], "none")
    assert "1 more errors than the minimum" in scored.sclite_text()


def test_halves_of_a_tenth_are_rounded_as_sclite_does():
    # of 80 words 69 right, 10 swapped and one lost: 86.25, 12.5, 1.25 and 13.75 %
    assert ScliteRow("s", 8, 80, 69, 10, 1, 0, 5).percentages() == (86.3, 12.5, 1.3, 0.0, 13.8, 62.5)
    assert ScliteRow("s", 16, 160, 58, 102, 0, 0, 15).percentages() == (36.3, 63.7, 0.0, 0.0, 63.7, 93.8)


@needs_sclite
def test_percentages_are_rounded_as_sclites(tmp_path):
    lines, recognized = [], []
    for words in (16, 80, 112, 160, 200):
        for wrong in range(words + 1):
            name = f"{words}w{wrong}"
            lines.append(Line(f"{name}-1", " ".join(f"w{k}" for k in range(words)), speaker=name))
            recognized.append(Line(f"{name}-1", " ".join(f"{'x' * (k < wrong)}w{k}" for k in range(words))))
    for wrong in range(17):  # sentences
        for k in range(16):
            lines.append(Line(f"w{wrong}-{k}", "a", speaker=f"w{wrong}"))
            recognized.append(Line(f"w{wrong}-{k}", "b" if k < wrong else "a"))
    scored = score_set(lines, recognized, "none")
    scored.write(tmp_path)
    out = sclite(tmp_path, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-o", "sum", "stdout")
    ours, theirs = (
        {row.split("|")[1].strip(): row.split("|")[2:4] for row in text.splitlines() if "w" in row}
        for text in (scored.sclite_text(), out)
    )
    assert len(ours) > 500
    for name, cells in ours.items():
        assert [cell.split() for cell in theirs[name]] == [cell.split() for cell in cells]


@needs_sclite
def test_a_thousand_random_pairs_and_the_summary_equal_sclites(tmp_path):
    references, hypotheses = random_texts(1000, seed=1)
    lines = [Line(f"s{i % 7}-{i}", text, speaker=f"s{i % 7}") for i, text in enumerate(references)]
    recognized = [Line(line.id, text) for line, text in zip(lines, hypotheses, strict=True)]
    scored = score_set(lines, recognized, "none")
    assert scored.write(tmp_path) == ()
    files = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id"]
    out = sclite(tmp_path, *files, "-o", "pra", "sum", "rsum", "stdout")
    found = re.findall(r"id: \(s\d-(\d+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", out)
    assert len(found) == 1000
    for number, *counts in found:
        assert [int(c) for c in counts] == scored.sclite_counts[int(number)].tolist()

    def cells(table):
        rows = [re.findall(r"[\w./]+", row) for row in table.splitlines()]
        return [row for row in rows if row and re.fullmatch(r"s\d|Sum/Avg", row[0])]

    ours = cells(scored.sclite_text())
    theirs = cells(out)
    assert len(ours) == 8
    assert ours == [row for row in theirs if "." in row[-1]][:8]  # rsum has counts, its rows end without a point
    row = sclite_row("Sum", scored.sclite_counts)
    raw = next(line for line in out.splitlines() if "| Sum  " in line)
    expected = [row.sentences, row.words, row.correct, row.substitutions, row.deletions, row.insertions, row.errors]
    assert [int(n) for n in re.findall(r"\d+", raw)][:8] == [*expected, row.sentence_errors]


@needs_sclite
def test_sclite_reads_the_ctm_and_stm_and_agrees(tmp_path):
    references, hypotheses = random_texts(60, seed=4)
    lines, recognized = [], []
    for i, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        words = hypothesis.split()
        times = tuple(Word(word, 0.2 * k, 0.2 * k + 0.15, 0.5) for k, word in enumerate(words))
        lines.append(Line(f"u {i}", reference or "a", speaker=f"s{i % 3}", duration=10.0))
        recognized.append(Line(f"u {i}", hypothesis, words=times))
    scored = score_set(lines, recognized, "none")
    scored.write(tmp_path)
    out = sclite(tmp_path, "-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm", "-o", "rsum", "stdout")
    raw = next(line for line in out.splitlines() if "| Sum  " in line)
    row = sclite_row("Sum", scored.sclite_counts)
    found = [int(n) for n in re.findall(r"\d+", raw)]
    assert found[1:7] == [row.words, row.correct, row.substitutions, row.deletions, row.insertions, row.errors]


@needs_sclite
def test_matched_pairs_equal_sc_stats(tmp_path):
    generator = random.Random(5)

    def corrupted(words, share):
        out = []
        for word in words:
            draw = generator.random() / share
            if draw < 1 / 3:
                continue
            out.append(f"z{generator.randrange(10**6)}" if draw < 2 / 3 else word)
            if 2 / 3 <= draw < 1:
                out.append(f"y{generator.randrange(10**6)}")
        return out

    references = [[f"w{i}x{j}" for j in range(generator.randint(1, 25))] for i in range(200)]  # all words differ
    a, b = ([corrupted(words, share) for words in references] for share in (0.2, 0.15))
    for name, texts in (("ref", references), ("a", a), ("b", b)):
        rows = "".join(f"{' '.join(text)} (s{i % 5}-{i})\n" for i, text in enumerate(texts))
        (tmp_path / name).write_text(rows, encoding="utf-8")
    piped = sclite(tmp_path, "-r", "ref", "trn", "-h", "a", "trn", "-h", "b", "trn", "-i", "spu_id", "-p")
    # Debian's sclite writes an alignment's fields on lines of their own, which its own sc_stats cannot read
    joined = re.sub(
        r"(<PATH[^\n]*\n)(.*?)\n(</PATH>)",
        lambda m: m[1] + re.sub(r"([^\n]*)\n([^\n]*)\n([^\n]*)(\n|$)", r"\1,\2,\3:", m[2])[:-1] + "\n" + m[3],
        piped,
        flags=re.DOTALL,
    )
    report = subprocess.run(
        ["sctk", "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "-"],
        input=joined,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"# segs: (\d+)\).*mean: ([-\d.]+)\).*Z Stat: ([-\d.]+)\)", report)
    assert found is not None
    ours = compare(*([" ".join(words) for words in texts] for texts in (references, a, b))).matched
    assert ours is not None
    assert int(found[1]) == ours.segments
    assert float(found[2]) == pytest.approx(ours.mean, abs=0.0006)
    assert float(found[3]) == pytest.approx(ours.z, abs=0.0006)


def test_the_table_has_a_row_per_speaker_and_a_total():
    counts = sclite_counts(["a b", "c d", ""], ["a b", "c", "x"])
    table = sclite_table(sclite_rows(counts, ["one", "two", ""])).splitlines()
    assert [row.split("|")[1].strip() for row in table if "%" not in row and row[2].isalpha()] == [
        "SPKR", "one", "two", "Sum/Avg"
    ]  # fmt: skip
    assert table[-1].split("|")[2].split() == ["3", "4"]
    assert table[-1].split("|")[3].split() == ["75.0", "0.0", "25.0", "25.0", "50.0", "66.7"]
    assert "(unknown)" in "\n".join(table)


def test_empty_sides():
    assert sclite_counts(["", "a b", ""], ["", "", "x"]).tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
    assert sclite_counts([], []).shape == (0, 4)


MARKUP = [
    "x a;b y", "M^{ME} DE", "; a", ";; a b", "a;", ";", "** a", "***", "b* c", "a ** b*", "a @ b", "@", "@b c@",
    "} a {", "a { b / c }", "a\\b", "\\; a", "(b) c)", "( a (b", "<unk> a", "<a,b>", "", "a\tb\u3000c\nd", "a/b / c",
    "%a -b- #c", "'a' \"b", "é ü",
]  # fmt: skip


@needs_sclite
@pytest.mark.parametrize("files", [("trn", "trn"), ("stm", "ctm")])
def test_texts_are_exported_so_that_sclite_reads_their_words(tmp_path, files):
    """Kind: text exported without regard to the reader's markup. Every text against itself and its neighbors."""
    pairs = [(text, other) for i, text in enumerate(MARKUP) for other in MARKUP[i : i + 3]]
    lines = [Line(f"s-{i:03d}", text, speaker="s", duration=99.0) for i, (text, _) in enumerate(pairs)]
    recognized = [
        Line(f"s-{i:03d}", text, words=tuple(Word(word, k, k + 0.5, 0.5) for k, word in enumerate(text.split())))
        for i, (_, text) in enumerate(pairs)
    ]
    scored = score_set(lines, recognized, "none")
    [warning] = scored.write(tmp_path)
    assert "full-width twins" in warning
    named = ["-r", f"ref.{files[0]}", files[0], "-h", f"hyp.{files[1]}", files[1]]
    out = sclite(tmp_path, *named, "-i", "spu_id", "-o", "pra", "stdout")
    found = [list(map(int, row.split())) for row in re.findall(r"\(#C #S #D #I\) (.*)", out)]
    assert sorted(found) == sorted(scored.sclite_counts.tolist())


def test_exported_texts_are_read_back_but_for_the_letters_that_sclite_cannot_read():
    for text in MARKUP:
        written = trn_line(text, "u1")
        [line] = read_trn("a.trn", written).lines
        if has_look_alikes(text):
            twins = str.maketrans("{}\\@", "\uff5b\uff5d\uff3c\uff20")
            assert line.text.translate({v: k for k, v in twins.items()}) == " ".join(text.split())
        else:
            assert line.text == " ".join(text.split())
        assert line.wordings is None


def test_the_text_of_an_stm_is_never_a_label():
    """Kind: text exported without regard to the reader's markup."""
    written = stm_line(Line("u1", "", duration=1.0), "<unk> a")
    assert written == "u1 1 u1 0.000 1.000 <> <unk> a\n"
    [line] = read_stm("a.stm", written).lines
    assert line.text == "<unk> a"
    assert stm_line(Line(";;1", "", duration=1.0), "").startswith("_;1 1 ")  # no comment


def wordings(markup):
    """Every plain text that alternatives allow, by another way: one by one, outer choices first."""
    start = markup.find("{")
    if start < 0:
        return {" ".join(word for word in markup.split() if word != "@")}
    depth, pieces = 0, [""]
    for end, letter in enumerate(markup[start:], start):
        depth += (letter == "{") - (letter == "}")
        if not depth:
            break
        if letter == "/" and depth == 1:
            pieces.append("")
        else:
            pieces[-1] += letter if end > start else ""
    return {text for piece in pieces for text in wordings(f"{markup[:start]} {piece} {markup[end + 1 :]}")}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [  # what sclite says, with the number of words that it counts
        ("a {b/c} d", "a c d", [3, 0, 0, 0]),
        ("a b {c / d} e", "a b d e", [4, 0, 0, 0]),
        ("{the / this} is it", "this is it", [3, 0, 0, 0]),
        ("a {b / @} c", "a x c", [2, 0, 0, 1]),
        ("a {b {c / d} / e} f", "a b d f", [4, 0, 0, 0]),
        ("a @ c", "a c", [2, 0, 0, 0]),
        ("a c", "a {b / c} c", [2, 0, 0, 1]),
        ("{a}c", "a c", [2, 0, 0, 0]),
        ("{ / b} c", "c", [1, 0, 1, 0]),
        ("{ @ / @ } c", "c", [1, 0, 0, 0]),
        ("a } b/c (d) e-", "a } b/c e", [3, 1, 1, 0]),
    ],
)
def test_a_choice_of_wordings_is_made_by_the_other_side(reference, hypothesis, expected):
    """Kind: markup recognized only as whole words."""
    one, other = (read_trn("r", f"{text} (u)").lines[0] for text in (reference, hypothesis))
    assert score_set([one], [other], "none").sclite_counts.tolist() == [expected]
    assert one.wordings is None or one.text == reference
    plain = score_set([Line("u", reference)], [Line("u", hypothesis)], "none")  # as JSONL and txt are read
    assert plain.references == (reference,)


def test_no_other_wording_is_cheaper_and_all_figures_are_of_that_one():
    generator = random.Random(9)
    references = [alternatives(generator, 2, 7) for _ in range(150)]
    recognized = [Line(str(i), alternatives(generator, 0, 7).replace("@", "e")) for i in range(150)]
    lines = [read_trn("r", f"{text} ({i})").lines[0] for i, text in enumerate(references)]
    scored = score_set(lines, recognized, "none", characters=True)
    for text, said, chosen in zip(references, recognized, scored.references, strict=True):
        assert chosen in wordings(text)
        costs = [weighted_cost(other.split(), said.text.split()) for other in wordings(text)]
        assert weighted_cost(chosen.split(), said.text.split()) == min(costs)
    assert scored.words.reference_length == sum(len(text.split()) for text in scored.references)
    assert scored.words.counts.errors <= scored.sclite_counts[:, 1:].sum()


def test_alternatives_are_normalized_word_by_word_and_compared_by_system():
    lines = [read_trn("r", f"{{Um, / @}} it's {{The / this}} one (x). ({i})").lines[0] for i in range(9)]
    a, b = ([Line(str(i), text) for i in range(9)] for text in ("UM it's this one x", "it's that one x"))
    (ours, first), (others, second) = (normalized_pairs(lines, recognized, "basic") for recognized in (a, b))
    assert ours[0] == "um it's this one x" == first[0]
    assert others[0] == "it's the one x"
    result = compare(ours, first, second, references_b=others)
    assert (result.a.rate, result.b.rate) == (0.0, 0.25)
    assert result.difference == result.b.rate - result.a.rate
    assert result.matched.segments == 9


def alternatives(generator, depth, longest):
    words = []
    for _ in range(generator.randint(0, longest)):
        if depth and generator.random() < 0.3:
            texts = [alternatives(generator, depth - 1, 3) or "@" for _ in range(generator.randint(1, 3))]
            bar, space = generator.choice(["/", " / ", " /", "/ "]), generator.choice(["", " "])
            words.append("{" + space + bar.join(texts) + space + "}")
        else:
            words.append(generator.choice("aabbccdd@"))
    return " ".join(words)


@needs_sclite
def test_wordings_are_chosen_as_by_sclite(tmp_path):
    """Kind: markup recognized only as whole words. Nested choices of several words or none, on both sides."""
    generator = random.Random(3)
    pairs = [(alternatives(generator, 2, 8), alternatives(generator, i % 4 == 0, 8)) for i in range(600)]
    for name, texts in (("ref.trn", [r for r, _ in pairs]), ("hyp.trn", [h for _, h in pairs])):
        rows = "".join(f"{text} (s-{i})\n" for i, text in enumerate(texts))
        (tmp_path / name).write_text(rows, encoding="utf-8")
    out = sclite(tmp_path, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-o", "pra", "stdout")
    found = {
        int(n): list(map(int, c.split())) for n, c in re.findall(r"\(s-(\d+)\)\nScores: \(#C #S #D #I\) (.*)", out)
    }
    test_set = pair(read_texts(str(tmp_path / "ref.trn")), read_texts(str(tmp_path / "hyp.trn"), hypotheses=True))
    scored = score_set(test_set.references, test_set.hypotheses, "none")
    assert [found[i] for i in range(600)] == scored.sclite_counts.tolist()
    assert scored.words.reference_length == scored.sclite_counts[:, :3].sum()


@needs_sclite
def test_a_ctm_is_cut_to_the_segments_of_an_stm_as_by_sclite(tmp_path):
    generator = random.Random(8)
    stm, ctm = [], []
    for recording in ("r1", "r2", "r3"):
        at = generator.uniform(0, 2)
        for _ in range(12):
            end = at + generator.uniform(0.3, 4.0)
            text = " ".join(generator.choice("abcd") for _ in range(generator.randint(0, 6)))
            text = "IGNORE_TIME_SEGMENT_IN_SCORING" if generator.random() < 0.15 else text
            label = generator.choice(["<> ", "<o,f> ", ""])
            stm.append(f"{recording} A s{generator.randint(1, 3)} {at:.2f} {end:.2f} {label}{text}".rstrip())
            at = end + generator.choice([0.0, 0.0, 1.5])
        time = 0.0
        while time < at + 3:
            ctm.append(f"{recording} A {time:.2f} 0.30 {generator.choice('abcd')} 0.9")
            time += generator.uniform(0.3, 1.2)
    (tmp_path / "ref.stm").write_text("\n".join(stm) + "\n", encoding="utf-8")
    (tmp_path / "hyp.ctm").write_text("\n".join(ctm) + "\n", encoding="utf-8")
    out = sclite(tmp_path, "-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm", "-o", "rsum", "stdout")
    raw = next(line for line in out.splitlines() if "| Sum  " in line)
    test_set = pair(read_texts(str(tmp_path / "ref.stm")), read_texts(str(tmp_path / "hyp.ctm"), hypotheses=True))
    row = sclite_row("Sum", score_set(test_set.references, test_set.hypotheses, "none").sclite_counts)
    expected = [row.sentences, row.words, row.correct, row.substitutions, row.deletions, row.insertions, row.errors]
    assert [int(n) for n in re.findall(r"\d+", raw)][:8] == [*expected, row.sentence_errors]
