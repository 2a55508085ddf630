"""The words of a decoder as a tree of characters in flat arrays, with the best LM unigram score below each node.

Words are spelled in characters even if the model's labels are SentencePiece pieces. A piece then walks several nodes at
once (`label_arcs`): every sequence of pieces that spells a word counts as that word, as in training with sampled
segmentations, and the search sums over them.
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

UNKNOWN = 0  # the LM's id for words it does not know


class LexiconError(AsrError):
    """A lexicon cannot be read, or has no word that the model can spell; the message names file and line."""


class Lexicon:
    """Words in a tree. `words[entry]` is the text of a word, `lookahead[node]` the best of `scores` below a node."""

    def __init__(
        self,
        alphabet: Alphabet,
        words: Sequence[str],
        lm_words: Sequence[int] | np.ndarray | None = None,
        scores: np.ndarray | None = None,
        spellings: Sequence[str] | None = None,
    ) -> None:
        """`scores` (natural log), `lm_words` (ids) and `spellings`, if not the words themselves, are one per word.

        Words that the alphabet cannot spell are left out, and listed in `unspellable`.
        """
        encoded = alphabet.encode(spellings if spellings is not None else words) if len(words) else []
        order = sorted((i for i, code in enumerate(encoded) if code), key=encoded.__getitem__)
        self.unspellable = [words[i] for i, code in enumerate(encoded) if not code]
        self.words = [words[i] for i in order]
        chosen = np.array(order, np.int64)
        numbers = {word: i for i, word in reversed(list(enumerate(self.words)))}
        texts = np.array([numbers[word] for word in self.words], np.int32)
        # If so, a text prefix has one parent and one spelling, as the faster search requires.
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
        """The tree with look-ahead scores: e^(`alpha` * score), at least e^`least`."""
        nodes = self.tree.node.copy()
        nodes["lookahead"][:-1] = (
            np.exp(np.maximum(alpha * self.lookahead.astype(np.float64), least)) if len(self) else 1.0
        )
        return self.tree._replace(node=nodes)


class SpelledWords(NamedTuple):
    """The words of a lexicon file and the spelling of each."""

    words: list[str]
    spellings: list[str]


def read_words(path: str | Path, alphabet: Alphabet) -> SpelledWords:
    """Words and their spellings from a text file with lines of `word`, or of `word unit unit ...` for another spelling.

    Units are labels of the model separated by white space: letters (`hello h e l l o`) or, with SentencePiece labels,
    also pieces (`hello ▁he llo`). A `|` or `▁` at the end, as in flashlight's lexicons, only ends the word. A word may
    have several spellings. Empty lines are skipped, as are lines that begin with `#` if the model has no such letter.
    Raises LexiconError with file and line for other units, such as pronunciations or several words.
    """
    labels = {label for label, silent in zip(alphabet.labels[1:], alphabet.silent[1:], strict=True) if not silent}
    entries: dict[tuple[str, str], None] = {}  # (spelling, word)
    for number, line in enumerate(read_text(path, LexiconError).split("\n"), 1):
        word, *units = line.split() or [""]
        if not word or (word.startswith("#") and "#" not in alphabet.index):
            continue
        if units and units[-1] in ("|", WORD_MARK):
            units.pop()
        problem = _problem(units, alphabet, labels)
        if problem:
            raise LexiconError(f"{path}:{number}: {problem}")
        entries["".join(units).removeprefix(WORD_MARK) or word, word] = None
    if not entries:
        raise LexiconError(f"{path}: no words in it (expected one per line)")
    return SpelledWords([word for _, word in entries], [spelling for spelling, _ in entries])


def _problem(units: list[str], alphabet: Alphabet, labels: set[str]) -> str:
    """What is wrong with the units of a spelling, "" if nothing is."""
    first, *others = units or [""]
    letters = [first.removeprefix(WORD_MARK), *others]
    if all(_is_letter(unit, alphabet) for unit in letters if unit):
        return ""
    expected = "expected a word, or a word and its letters, as in 'hello h e l l o'"
    if alphabet.pieces:
        if first.startswith(WORD_MARK) and first in {WORD_MARK, *labels} and labels.issuperset(others):
            marked = next((unit for unit in others if unit.startswith(WORD_MARK)), None)
            return f"'{marked}' begins another word: an entry is one word" if marked else ""
        expected += f", or its pieces, the first with the word mark, as in 'hello {WORD_MARK}he llo'"
    units = [unit for unit in units if unit not in labels and not _is_letter(unit, alphabet)] or units
    return f"'{units[0]}' is not a label that can spell a word: {expected}; no pronunciations or several words"


def _is_letter(unit: str, alphabet: Alphabet) -> bool:
    """Whether a unit is a symbol of the alphabet, possibly with combining marks."""
    return all(symbol in alphabet.index for symbol in unit) and all(category(mark)[0] == "M" for mark in unit[1:])


def _build(alphabet: Alphabet, encoded: list[str], lm_words: np.ndarray, scores: np.ndarray) -> tuple[Tree, np.ndarray]:
    """The tree of sorted strings, built level by level: words that share a node are neighbors."""
    flat, starts = alphabet.codes(encoded)
    lengths = np.diff(starts)
    parents, symbols, counts = [np.zeros(1, np.int64)], [np.zeros(1, np.int32)], [1]
    end = np.zeros(len(encoded), np.int64)
    alive = np.arange(len(encoded))
    at = np.zeros(len(encoded), np.int64)  # the current node of each word in `alive`
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
    entry = np.zeros(max(len(encoded), 1), ENTRY)  # compiled code needs a non-empty array
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
    lookahead[0] = 0.0  # nothing is known about a word before its first symbol
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
    """The largest number of words with the same spelling, which are neighbors."""
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
def child_of(nodes: np.ndarray, symbol: np.ndarray, node: int, sought: int) -> Any:
    """The child of `node` by a symbol, -1 if there is none."""
    low, high = np.int64(nodes[node].child), np.int64(nodes[node + 1].child)
    while low < high:
        middle = (low + high) >> 1
        if symbol[middle] < sought:
            low = middle + 1
        else:
            high = middle
    if low < nodes[node + 1].child and symbol[low] == sought:
        return low
    return np.int64(-1)


@embedded
def label_child(tree: Tree, node: int, label: int) -> Any:
    """The node to which a label leads in the tree, -1 if there is none."""
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
    tree: np.ndarray, symbol: np.ndarray, flat: np.ndarray, starts: np.ndarray, labels: np.ndarray,
    root_child: np.ndarray, longest: int,
) -> Any:  # fmt: skip
    """For every node that labels can reach, the labels that continue from it and their nodes: arrays of `Tree`.

    Label `labels[k]` spells `flat[starts[k]:starts[k + 1]]`. The spellings are sorted, so that labels with a common
    beginning are neighbors, and that beginning is walked only once: `path` has the nodes along the current label.
    """
    nodes = tree.shape[0] - 1
    reached = np.zeros(nodes, np.bool_)
    for c in root_child:
        if c >= 0:
            reached[c] = True
    # `jump` tells where to continue when label k fails at its symbol d: at the next label that does not share its
    # first d + 1 symbols, since those in between fail as well.
    shared = np.zeros(labels.shape[0] + 1, np.int64)  # number of symbols that label k shares with the previous one
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
            known: Any = np.int64(0)  # number of symbols of label k that have been walked
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
                at = count  # insert in order of label
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
