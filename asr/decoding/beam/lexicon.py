"""The words a decoder knows as a tree of characters in flat arrays, with the best LM unigram score below each node.

Words are spelled in characters, also where the model's labels are SentencePiece pieces. There a label walks several
nodes at once (`label_arcs`): every sequence of pieces that spells a word counts as that word, as in training with
sampled segmentations, and the search sums over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import category

import numpy as np

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.arrays import ENTRY, TREE_NODE, Tree
from asr.files import read_text
from asr.lm.compiling import embedded, kernel
from asr.text.tokenizer import WORD_MARK
from asr.types import AsrError

UNKNOWN = 0  # the LM's id of words it does not know


class LexiconError(AsrError):
    """A list of words cannot be read or holds none that the model can spell; the message names file and line."""


class Lexicon:
    """Words in a tree. `words[entry]` is a word's text, `lookahead[node]` the best of `scores` at or below a node."""

    def __init__(
        self,
        alphabet: Alphabet,
        words: Sequence[str],
        lm_words: Sequence[int] | np.ndarray | None = None,
        scores: np.ndarray | None = None,
        spellings: Sequence[str] | None = None,
    ) -> None:
        """`scores` (natural log) and `lm_words` (ids) go with `words`; `spellings`, where they differ from the texts.

        Words that the alphabet cannot spell are left out and kept in `unspellable`.
        """
        encoded = alphabet.encode(spellings if spellings is not None else words) if len(words) else []
        order = sorted((i for i, code in enumerate(encoded) if code), key=encoded.__getitem__)
        self.unspellable = [words[i] for i, code in enumerate(encoded) if not code]
        self.words = [words[i] for i in order]
        chosen = np.array(order, np.int64)
        numbers = {word: i for i, word in reversed(list(enumerate(self.words)))}
        texts = np.array([numbers[word] for word in self.words], np.int32)
        # Then a text prefix has one parent and one spelling, which the faster search relies on.
        self.one_way = alphabet.fits_bits and len(numbers) == len(self.words)
        ids = np.zeros(len(words), np.int32) if lm_words is None else np.asarray(lm_words, np.int32)
        values = np.zeros(len(words), np.float32) if scores is None else np.asarray(scores, np.float32)
        tree, self.lookahead = _build(alphabet, [encoded[i] for i in order], ids[chosen], values[chosen])
        tree.entry["text"][: len(texts)] = texts
        self.tree = tree if self.one_way else _with_label_arcs(tree, alphabet)
        self.homographs = _longest_chain(self.tree.entry["next"])

    def __len__(self) -> int:
        return len(self.words)

    def weighted(self, alpha: float, least: float) -> Tree:
        """The tree with look-ahead: e^(`alpha` * score), at least e^`least`."""
        nodes = self.tree.node.copy()
        nodes["lookahead"][:-1] = (
            np.exp(np.maximum(alpha * self.lookahead.astype(np.float64), least)) if len(self) else 1.0
        )
        return self.tree._replace(node=nodes)


class SpelledWords(NamedTuple):
    """The words of a lexicon file and, one for each, how they are spelled."""

    words: list[str]
    spellings: list[str]


def read_words(path: str | Path, alphabet: Alphabet) -> SpelledWords:
    """Words and their spellings from a text file: lines of `word`, or of `word unit unit ...` to spell it otherwise.

    Units are the model's labels between white space: letters (`hello h e l l o`), with SentencePiece labels also pieces
    (`hello ▁he llo`). A `|` or `▁` at the end, as in flashlight's lexicons, only ends the word. A word may have
    several spellings. Empty lines are skipped, and those that begin with `#` if the model has no such letter. Raises
    LexiconError with file and line for other units: a pronunciation, or several words, would spell something else.
    """
    labels = {label for label, silent in zip(alphabet.labels[1:], alphabet.silent[1:], strict=True) if not silent}
    found: dict[tuple[str, str], None] = {}
    for number, line in enumerate(read_text(path, LexiconError).split("\n"), 1):
        word, *units = line.split() or [""]
        if not word or (word.startswith("#") and "#" not in alphabet.index):
            continue
        if units and units[-1] in ("|", WORD_MARK):
            units.pop()
        wrong = _no_label(units, alphabet, labels)
        if wrong:
            raise LexiconError(f"{path}:{number}: {wrong}")
        found["".join(units).removeprefix(WORD_MARK) or word, word] = None
    if not found:
        raise LexiconError(f"{path}: holds no words (one per line expected)")
    return SpelledWords([word for _, word in found], [spelling for spelling, _ in found])


def _no_label(units: list[str], alphabet: Alphabet, labels: set[str]) -> str:
    """What is wrong with the units of a spelling, "" where nothing is."""
    first, *others = units or [""]
    letters = [first.removeprefix(WORD_MARK), *others]
    if all(_is_letter(unit, alphabet) for unit in letters if unit):
        return ""
    expected = "expected is a word alone, or a word and its letters, as in 'hello h e l l o'"
    if alphabet.pieces:
        if first.startswith(WORD_MARK) and first in {WORD_MARK, *labels} and labels.issuperset(others):
            marked = next((unit for unit in others if unit.startswith(WORD_MARK)), None)
            return f"'{marked}' begins another word: an entry is one word" if marked else ""
        expected += f", or its pieces from one with the word mark on, as in 'hello {WORD_MARK}he llo'"
    units = [unit for unit in units if unit not in labels and not _is_letter(unit, alphabet)] or units
    return (
        f"'{units[0]}' is no label of the model to spell a word with: {expected}; not a pronunciation or several words"
    )


def _is_letter(unit: str, alphabet: Alphabet) -> bool:
    """Whether a unit is a symbol that the model spells with, or one with marks above or below it."""
    return all(symbol in alphabet.index for symbol in unit) and all(category(mark)[0] == "M" for mark in unit[1:])


def _build(alphabet: Alphabet, encoded: list[str], lm_words: np.ndarray, scores: np.ndarray) -> tuple[Tree, np.ndarray]:
    """The tree over sorted strings, level by level: words that share a node are neighbors."""
    flat, starts = alphabet.codes(encoded)
    lengths = np.diff(starts)
    parents, symbols, counts = [np.zeros(1, np.int64)], [np.zeros(1, np.int32)], [1]
    end = np.zeros(len(encoded), np.int64)
    alive = np.arange(len(encoded))
    at = np.zeros(len(encoded), np.int64)  # the node that each living word has come to
    nodes, depth = 1, 0
    while len(alive):
        letter = flat[starts[alive] + depth]
        fresh = np.ones(len(alive), bool)
        fresh[1:] = (at[1:] != at[:-1]) | (letter[1:] != letter[:-1])
        parents.append(at[fresh])
        symbols.append(letter[fresh])
        at = nodes - 1 + np.cumsum(fresh)
        nodes += int(fresh.sum())
        counts.append(int(fresh.sum()))
        depth += 1
        ends = lengths[alive] == depth
        end[alive[ends]] = at[ends]
        alive, at = alive[~ends], at[~ends]
    parent, symbol = np.concatenate(parents), np.concatenate(symbols)
    child = np.ones(nodes + 1, np.int64)
    child[1:] += np.cumsum(np.bincount(parent[1:], minlength=nodes))
    mask = np.zeros(nodes, np.uint64)
    if alphabet.fits_bits:
        np.bitwise_or.at(mask, parent[1:], np.uint64(1) << symbol[1:].astype(np.uint64))
    node = np.zeros(nodes + 1, TREE_NODE)
    node["child"], node["mask"][:-1], node["entry"], node["lookahead"] = child, mask, -1, 1.0
    node["depth"][:-1] = np.repeat(np.arange(len(counts)), counts)
    entry = np.zeros(max(len(encoded), 1), ENTRY)  # compiled code takes no empty array
    entry["next"] = -1
    if len(encoded):
        entry["end"], entry["word"] = end, lm_words
        entry["next"][:-1][end[1:] == end[:-1]] = np.flatnonzero(end[1:] == end[:-1]) + 1
        node["entry"][end[::-1]], node["word"][end[::-1]] = np.arange(len(encoded))[::-1], lm_words[::-1]
    lookahead = np.full(nodes, -np.inf, np.float32)
    np.maximum.at(lookahead, end, scores)
    last = nodes
    for count in reversed(counts[1:]):
        level = slice(last - count, last)
        np.maximum.at(lookahead, parent[level], lookahead[level])
        last -= count
    lookahead[0] = 0.0  # nothing is known of a word before its first symbol
    tree = Tree(
        node=node,
        symbol=symbol.astype(np.int32),
        parent=parent.astype(np.int32),
        entry=entry,
        arc=np.zeros(1, np.int32),
        arc_label=np.zeros(1, np.int32),
        arc_child=np.zeros(1, np.int32),
        root_child=np.zeros(1, np.int32),
    )
    return tree, lookahead


def _longest_chain(following: np.ndarray) -> int:
    """The largest number of words with one spelling; they are neighbors."""
    breaks = np.flatnonzero(np.concatenate(([True], following < 0)))
    return int(np.diff(breaks).max(initial=1))


def _with_label_arcs(tree: Tree, alphabet: Alphabet) -> Tree:
    first, spelling = alphabet.first, alphabet.spelling
    root_child = np.full(len(alphabet.labels), -1, np.int32)
    for label in range(1, len(alphabet.labels)):
        if first[label] < first[label + 1]:
            root_child[label] = _walk(tree.node, tree.symbol, 0, spelling[first[label] : first[label + 1]])
    inner = [i for i in range(1, len(alphabet.labels)) if not alphabet.starts_word[i] and first[i] < first[i + 1]]
    texts = ["".join(chr(s + 32) for s in spelling[first[i] : first[i + 1]]) for i in inner]
    order = sorted(range(len(inner)), key=texts.__getitem__)
    sorted_labels = np.array([inner[i] for i in order], np.int32)
    flat, starts = alphabet.codes([texts[i] for i in order])
    arc, arc_label, arc_child = label_arcs(
        tree.node, tree.symbol, flat, starts, sorted_labels, root_child, int(np.diff(starts).max(initial=1))
    )
    return tree._replace(arc=arc, arc_label=arc_label, arc_child=arc_child, root_child=root_child)


@kernel
def child_of(nodes: np.ndarray, symbol: np.ndarray, node: int, wanted: int) -> Any:
    """The child of `node` by a symbol, -1 where there is none."""
    low, high = np.int64(nodes[node].child), np.int64(nodes[node + 1].child)
    while low < high:
        middle = (low + high) >> 1
        if symbol[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    if low < nodes[node + 1].child and symbol[low] == wanted:
        return low
    return np.int64(-1)


@embedded
def label_child(tree: Tree, node: int, label: int) -> Any:
    """The node that a label leads to inside the tree, -1; the labels of the root's arcs begin a word."""
    to = np.int64(-1)
    if node == 0:
        to = np.int64(tree.root_child[label])
    else:
        low, end = np.int64(tree.arc[node]), np.int64(tree.arc[node + 1])
        high = end
        while low < high:
            middle = (low + high) >> 1
            if tree.arc_label[middle] < label:
                low = middle + 1
            else:
                high = middle
        if low < end and tree.arc_label[low] == label:
            to = np.int64(tree.arc_child[low])
    return to


@kernel
def _walk(nodes: np.ndarray, symbol: np.ndarray, node: int, symbols: np.ndarray) -> Any:
    at = np.int64(node)
    for s in symbols:
        at = child_of(nodes, symbol, at, s)
        if at < 0:
            return np.int64(-1)
    return at


@kernel
def label_arcs(
    tree: np.ndarray,
    symbol: np.ndarray,
    flat: np.ndarray,
    starts: np.ndarray,
    labels: np.ndarray,
    root_child: np.ndarray,
    longest: int,
) -> Any:
    """For every node that labels can reach, the labels that go on from it and where to: arrays of `Tree`.

    Label `labels[k]` spells `flat[starts[k]:starts[k + 1]]`; the spellings are sorted, so that those with a common
    beginning are neighbors and are walked together.
    """
    nodes = tree.shape[0] - 1
    reached = np.zeros(nodes, np.bool_)
    for c in root_child:
        if c >= 0:
            reached[c] = True
    # where to go on after label k failed at its symbol d: the next label that does not share d + 1 symbols with it
    shared = np.zeros(labels.shape[0] + 1, np.int64)  # symbols that label k shares with the one before
    jump = np.empty(flat.shape[0], np.int64)
    for i in range(labels.shape[0] - 1, -1, -1):
        length = starts[i + 1] - starts[i]
        if i > 0:
            most = min(length, starts[i] - starts[i - 1])
            while shared[i] < most and flat[starts[i] + shared[i]] == flat[starts[i - 1] + shared[i]]:
                shared[i] += 1
        for d in range(length):
            jump[starts[i] + d] = jump[starts[i + 1] + d] if shared[i + 1] > d else i + 1
    arc = np.zeros(nodes + 1, np.int32)
    found_label, found_child = np.empty(1024, np.int32), np.empty(1024, np.int32)
    count = 0
    path = np.empty(longest + 1, np.int64)
    for node in range(1, nodes):
        begin = count
        if reached[node] and tree[node].child < tree[node + 1].child:
            path[0] = node
            known: Any = np.int64(0)  # so many symbols of label k have been walked
            k: Any = np.int64(0)
            while k < labels.shape[0]:
                length = starts[k + 1] - starts[k]
                while known < length:
                    following = child_of(tree, symbol, path[known], flat[starts[k] + known])
                    if following < 0:
                        break
                    known += 1
                    path[known] = following
                if known < length:
                    k = jump[starts[k] + known]
                    known = min(known, shared[k])
                    continue
                if count == found_label.shape[0]:
                    found_label = np.concatenate((found_label, np.empty_like(found_label)))
                    found_child = np.concatenate((found_child, np.empty_like(found_child)))
                at = count  # in order of label
                while at > begin and found_label[at - 1] > labels[k]:
                    found_label[at], found_child[at] = found_label[at - 1], found_child[at - 1]
                    at -= 1
                found_label[at], found_child[at] = labels[k], path[known]
                reached[path[known]] = True
                count += 1
                k += 1
                known = min(known, shared[k])
        arc[node + 1] = count
    return arc, found_label[:count].copy(), found_child[:count].copy()
