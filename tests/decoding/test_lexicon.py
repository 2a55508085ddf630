"""The tree of words: every word found where it is spelled, label arcs, look-ahead, homographs, files of words."""

from __future__ import annotations

import re

import numpy as np
import pytest
from beam_oracle import emissions
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam.alphabet import Alphabet, LabelError
from asr.decoding.beam.lexicon import Lexicon, LexiconError, read_words
from asr.decoding.beam.search import BeamSearch, Pruning

CHARACTERS = ["", " ", *"abc"]
PIECES = ["", "\u2581", "a", "b", "c", "\u2581a", "ab", "abc", "bc", "\u2581ca", "cab"]
words_of = st.lists(st.text("abcd", min_size=1, max_size=6), max_size=30, unique=True)


def paths(alphabet, tree):
    spelled = [""] * len(tree.symbol)
    for node in range(1, len(tree.symbol)):
        spelled[node] = spelled[tree.parent[node]] + alphabet.symbols[tree.symbol[node]]
    return spelled


@settings(max_examples=100, deadline=None)
@given(words_of, st.sampled_from([CHARACTERS, PIECES]))
def test_the_tree_holds_every_word_and_what_labels_do_in_it(words, labels):
    alphabet = Alphabet(labels)
    scores = np.array([-float(i + 1) for i in range(len(words))], np.float32)
    lexicon = Lexicon(alphabet, words, range(len(words)), scores)
    tree, spelled = lexicon.tree, paths(alphabet, lexicon.tree)
    known = {word: i for i, word in enumerate(words) if "d" not in word}
    assert sorted(lexicon.unspellable) == sorted(word for word in words if "d" in word)
    assert sorted(spelled) == sorted({word[:n] for word in known for n in range(len(word) + 1)} | {""})
    at = {path: node for node, path in enumerate(spelled)}
    for node, path in enumerate(spelled):
        entry = tree.node[node]["entry"]
        assert (path in known) == (entry >= 0)
        if entry >= 0:
            assert lexicon.words[entry] == path
            assert tree.entry[entry]["word"] == known[path]
        children = range(tree.node["child"][node], tree.node["child"][node + 1])
        assert {spelled[child] for child in children} == {p for p in at if len(p) == len(path) + 1 and p[:-1] == path}
        if path:
            assert lexicon.lookahead[node] == max(-1.0 - i for word, i in known.items() if word.startswith(path))
    if labels is CHARACTERS:
        bits = [
            sum(1 << int(tree.symbol[c]) for c in range(tree.node["child"][n], tree.node["child"][n + 1]))
            for n in range(len(at))
        ]
        assert tree.node["mask"][:-1].tolist() == bits
        return
    texts = [label.removeprefix("\u2581") for label in labels]
    assert tree.root_child.tolist() == [at.get(text, -1) if text else -1 for text in texts]
    reached = set(tree.root_child.tolist()) - {-1}
    for node in range(1, len(at)):
        arcs = slice(tree.arc[node], tree.arc[node + 1])
        found = dict(zip(tree.arc_label[arcs].tolist(), tree.arc_child[arcs].tolist(), strict=True))
        inside = [(c, spelled[node] + texts[c]) for c in range(2, len(labels)) if texts[c] == labels[c]]
        assert found == ({c: at[path] for c, path in inside if path in at} if node in reached else {})
        assert list(found) == sorted(found)
        reached.update(found.values())


@pytest.mark.parametrize("labels", [CHARACTERS, PIECES])
def test_words_of_one_spelling_are_all_found(labels, tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("AB a b |\nab\nCab\tc a b\ncab\nCab\n", encoding="utf-8")
    search = BeamSearch(labels, lexicon=path, nbest=50, beam_width=500, pruning=Pruning.nothing())
    found = {h.text: h.score for h in search.decode(emissions(np.random.default_rng(1), 5, len(labels)))}
    assert {"AB", "ab", "Cab", "cab", ""} <= set(found)
    assert found["AB"] == pytest.approx(found["ab"])


ONE_WORD = ["cab"], ["cab"]


@pytest.mark.parametrize(
    ("labels", "content", "expected"),
    [
        (CHARACTERS, b"\xef\xbb\xbfab\r\nab\r\n\r\ncab c a b |\r\n", (["ab", "cab"], ["ab", "cab"])),
        (CHARACTERS, b"# words\ncab\n\tcab  \n#\n", ONE_WORD),
        (CHARACTERS, b"cab\tc a b \xe2\x96\x81\ncab |\ncab \xe2\x96\x81c a b", ONE_WORD),
        (CHARACTERS, b"Cab c a b\nCab b a c\nCab c a b\n", (["Cab", "Cab"], ["cab", "bac"])),
        (CHARACTERS, b"xyz\n", (["xyz"], ["xyz"])),  # left out later, with a warning
        ([*CHARACTERS, "#"], b"#ab\n", (["#ab"], ["#ab"])),
        (["", " ", "\u0915", "\u093f"], "K \u0915\u093f \u0915".encode(), (["K"], ["\u0915\u093f\u0915"])),
        (PIECES, b"cab c a b |\n", ONE_WORD),
        (PIECES, "cab \u2581ca b\ncab \u2581 cab\ncab \u2581\n".encode(), ONE_WORD),
    ],
)
def test_a_lexicon_file_is_words_and_what_spells_them(tmp_path, labels, content, expected):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    assert read_words(path, Alphabet(labels)) == expected


@pytest.mark.parametrize(
    ("labels", "line", "unit"),
    [
        (CHARACTERS, "cab k ae b", "k"),  # a pronunciation
        (CHARACTERS, "ba b aa", "aa"),  # one whose phones are letters of the model
        (CHARACTERS, "a aa", "aa"),
        (CHARACTERS, "cab ab", "ab"),  # an entry of two words
        (CHARACTERS, "cab\tca b", "ca"),
        (CHARACTERS, "cabab c a b | a b |", "|"),
        (CHARACTERS, "cab 1.0 c a b", "1.0"),  # Kaldi's lexiconp.txt
        (CHARACTERS, "CAB C A B", "C"),
        (PIECES, "cab k ae b", "k"),
        (PIECES, "abc a bc", "a"),
        (PIECES, "cab ab", "ab"),  # a piece, but no spelling: it does not begin a word
        (PIECES, "caba \u2581ca \u2581a", "\u2581a"),
        (PIECES, "cab \u2581ca <unk>", "<unk>"),
    ],
)
def test_units_that_are_no_labels_are_refused_with_file_and_line(tmp_path, labels, line, unit):
    """Pronunciations and entries of several words must not pass for spellings."""
    path = tmp_path / "words.txt"
    path.write_text(f"cab\n\n{line}\nba\n", encoding="utf-8")
    with pytest.raises(LexiconError, match=rf"words\.txt:3: '{re.escape(unit)}' .*word") as caught:
        BeamSearch(labels, lexicon=path)
    assert "\n" not in str(caught.value)


def test_files_without_words_are_refused_by_name(tmp_path):
    path = tmp_path / "words.txt"
    for empty in ("", "\n", "\ufeff", "# nothing\n"):
        path.write_text(empty, encoding="utf-8")
        with pytest.raises(LexiconError, match="no words in it"):
            read_words(path, Alphabet(CHARACTERS))
    with pytest.raises(LexiconError, match="cannot be read"):
        read_words(tmp_path / "missing.txt", Alphabet(CHARACTERS))
    with pytest.raises(LexiconError, match="none of the lexicon's 2 words"):
        BeamSearch(CHARACTERS, lexicon=["XY", "Z"])


def test_labels_that_do_not_spell_are_refused():
    for labels, message in ((["", "ab"], "one character"), (["", "a", "a"], "twice"), ([""], "at least one")):
        with pytest.raises(LabelError, match=message):
            Alphabet(labels)
    alphabet = Alphabet(["", "<unk>", "\u2581a", "b"])
    assert alphabet.silent.tolist() == [0, 1, 0, 0]


def test_an_unknown_label_is_never_output():
    log_probs = np.log(np.array([[0.005, 0.9, 0.005, 0.09]] * 4, np.float32))
    assert BeamSearch(["", "<unk>", "\u2581a", "b"]).decode(log_probs)[0].text == "b"
