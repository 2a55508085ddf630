"""When the words of a hypothesis were spoken: the best alignment of its text to the emissions (Viterbi).

The text is a lattice of labels: among SentencePiece pieces a word has many segmentations, and the best one is found
together with its times. As in greedy decoding a word begins at the first frame of its first label and ends with the
last frame of its last one; its confidence is the lowest of its labels' posteriors, each taken at its peak.
"""

from __future__ import annotations

import numpy as np

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.words import IMPOSSIBLE, LabelsBySymbol, align_characters, align_pieces
from asr.types import Word

_LARGEST = 1 << 24  # rows times lattice of one alignment; longer texts are aligned in parts
_PART = 50  # words


def labels_by_symbol(alphabet: Alphabet) -> LabelsBySymbol:
    """The index of an alphabet's labels."""
    first = alphabet.first
    spoken = np.flatnonzero(first[1:] > first[:-1])
    leading = alphabet.spelling[first[spoken]]
    order = np.argsort(leading, kind="stable")
    begin = np.searchsorted(leading[order], np.arange(len(alphabet.symbols) + 1))
    return LabelsBySymbol(
        first,
        alphabet.spelling,
        alphabet.starts_word,
        alphabet.silent,
        spoken[order].astype(np.int32),
        begin.astype(np.int32),
        alphabet.separator,
        not alphabet.pieces,
    )


def time_words(
    log_probs: np.ndarray,
    rows: np.ndarray,
    frames: np.ndarray,
    symbols: np.ndarray,
    starts: np.ndarray,
    ended: np.ndarray,
    words: int,
    labels: LabelsBySymbol,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First frame, one past the last frame, and confidence of each of `words` words (at least one).

    Row `rows[k]` of `log_probs` is frame `frames[k]`; word w spells `symbols[starts[w]:starts[w + 1] - 1]`, and the
    search took it as ended in frame `ended[w]`. A text too long for one alignment is cut after every 50 words where the
    search ended the word, and pieced together; where a part does not fit between its cuts, it is joined with the next.
    """
    begins, ends, confidences = np.full(words, -1, np.int64), np.full(words, -1, np.int64), np.zeros(words)
    part = words if len(rows) * int(starts[words]) * 2 <= _LARGEST else _PART
    word, row = 0, 0
    while word < words:
        count = min(part, words - word)
        while True:
            last = word + count == words
            stop = len(rows) if last else max(row, int(np.searchsorted(frames, ended[word + count - 1])))
            which = slice(word, word + count)
            first, final = int(starts[word]), int(starts[word + count]) - 1
            spelled, spelled_starts = symbols[first:final], starts[word : word + count + 1] - first
            taken = rows[row:stop], frames[row:stop]
            if labels.plain:
                best = align_characters(
                    log_probs,
                    *taken,
                    spelled,
                    spelled_starts,
                    count,
                    labels.separator,
                    begins[which],
                    ends[which],
                    confidences[which],
                )
            else:
                best = align_pieces(
                    log_probs,
                    *taken,
                    spelled,
                    spelled_starts,
                    count,
                    labels,
                    begins[which],
                    ends[which],
                    confidences[which],
                )
            if best > IMPOSSIBLE or last:
                break
            count = min(count + _PART, words - word)
        if best <= IMPOSSIBLE and word > 0:  # a cut before left too little for the rest: without cuts
            part, word, row = words, 0, 0
            continue
        word, row = word + count, stop
    return begins, ends, confidences


def align_text(
    alphabet: Alphabet, labels: LabelsBySymbol, log_probs: np.ndarray, text: str, frame_seconds: float
) -> tuple[Word, ...]:
    """The words of a text with times (seconds) and confidences; none where they do not fit into the emissions.

    `log_probs` (time, vocab) natural log; for decoders that do not tell times themselves.
    """
    words = text.split()
    if not words or any(symbol not in alphabet.index for word in words for symbol in word):
        return ()
    symbols = np.array([alphabet.index[c] if c != " " else 0 for c in " ".join(words)], np.int32)
    starts = np.zeros(len(words) + 3, np.int64)
    starts[1 : len(words) + 1] = np.cumsum([len(word) + 1 for word in words])
    rows = np.arange(len(log_probs))
    ended = np.full(len(words), -1, np.int64)
    begins, ends, confidences = time_words(log_probs, rows, rows, symbols, starts, ended, len(words), labels)
    if begins[0] < 0:
        return ()
    times = (begins * frame_seconds).tolist(), (ends * frame_seconds).tolist()
    return tuple(map(Word, words, *times, confidences.tolist()))
