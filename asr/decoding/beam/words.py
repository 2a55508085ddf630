"""Word times of a hypothesis: the best alignment of its text to the emissions (Viterbi).

The text is a chain of characters or a lattice of labels: with SentencePiece pieces a word has many segmentations, and
the best one is found together with its times. As in greedy decoding, a word begins with the first frame of its first
label and ends with the last frame of its last one; its confidence is the lowest posterior of its labels, each at its
peak.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam.alphabet import Alphabet, LabelsBySymbol
from asr.lm.compiling import INTERNAL, allocating_kernel, bare_kernel, compiled, kernel
from asr.types import Word

_NEVER = np.float32(-1e30)
IMPOSSIBLE = -1e29  # natural log
_LARGEST = 1 << 24  # rows times lattice size of an alignment; longer texts are aligned in parts
_PART = 50  # words


@bare_kernel
def kept_frames(log_probs: np.ndarray, blank_skip: float, in_blanks: bool, kept: np.ndarray) -> Any:
    """Write the frames that an alignment needs to `kept`: all but the second and later ones of a run of skipped blanks.

    `in_blanks`: whether such a run was open before. Returns the number of frames, and whether a run is open after.
    """
    count = 0
    for t in range(log_probs.shape[0]):
        blank = log_probs[t, 0] > blank_skip
        if not (blank and in_blanks):
            kept[count] = t
            count += 1
        in_blanks = blank
    return count, in_blanks


@compiled(**INTERNAL)
def _lattice(symbols: np.ndarray, starts: np.ndarray, words: int, labels: LabelsBySymbol) -> Any:
    """Arcs of labels between the places of a text: source, label, word (-1: none), sorted by target; and `into`.

    Place i is before symbol i; the arcs into it are `into[i]` to `into[i + 1]`. A separator may come before and after
    all words, and repeatedly between two words.
    """
    length = max(starts[words] - 1, 0)
    first, spelling, starts_word, separator = labels.first, labels.spelling, labels.starts_word, labels.separator
    room = 2 * (length + words + 1)
    for i in range(length):
        room += 2 * (labels.begin[symbols[i] + 1] - labels.begin[symbols[i]])
    source, target = np.empty(room, np.int32), np.empty(room, np.int32)
    label, word = np.empty(room, np.int32), np.empty(room, np.int32)
    count = 0
    for w in range(words + 1):
        inside = starts[w + 1] - 1 - starts[w] if w < words else 0
        begin = np.int64(starts[w]) if w < words else np.int64(length)
        for i in range(begin, begin + max(inside, 1)):
            at_start = i == begin
            if at_start and separator < first.shape[0] - 1:
                source[count], target[count], label[count], word[count] = begin, begin, separator, -1
                count += 1
                if 0 < w < words:
                    source[count], target[count], label[count], word[count] = begin - 1, begin, separator, -1
                    count += 1
            if w == words:
                break
            for k in range(labels.begin[symbols[i]], labels.begin[symbols[i] + 1]):
                c = labels.label[k]
                size = first[c + 1] - first[c]
                if labels.silent[c] != 0 or i + size > begin + inside or (starts_word[c] != 0 and not at_start):
                    continue
                matches = True
                for j in range(size):
                    if spelling[first[c] + j] != symbols[i + j]:
                        matches = False
                        break
                if matches:
                    source[count], target[count], label[count], word[count] = i, i + size, c, w
                    count += 1
                    if starts_word[c] != 0 and w > 0:
                        source[count], target[count], label[count], word[count] = i - 1, i + size, c, w
                        count += 1
    # A counting sort by target, since numpy's sort takes 2 s to compile.
    into = np.zeros(length + 2, np.int32)
    for a in range(count):
        into[target[a] + 1] += 1
    for n in range(length + 1):
        into[n + 1] += into[n]
    free = into.copy()
    sorted_source, sorted_label = np.empty(count, np.int32), np.empty(count, np.int32)
    sorted_word = np.empty(count, np.int32)
    for a in range(count):
        at = free[target[a]]
        free[target[a]] += 1
        sorted_source[at], sorted_label[at], sorted_word[at] = source[a], label[a], word[a]
    return sorted_source, sorted_label, sorted_word, into


@kernel
def align_pieces(
    log_probs: np.ndarray, rows: np.ndarray, frames: np.ndarray, symbols: np.ndarray, starts: np.ndarray, words: int,
    labels: LabelsBySymbol, word_start: np.ndarray, word_end: np.ndarray, confidence: np.ndarray,
) -> Any:  # fmt: skip
    """Align `words` words to the given rows of `log_probs`; row `rows[t]` is frame `frames[t]`.

    Writes first frame, one past the last frame, and confidence (a probability) of each word. Returns the natural
    log-probability of the best path, about -1e30 if the words do not fit in so few rows. A path is either on an arc
    (its last label) or at a place (after a blank); `back` has the predecessor of each, arcs first, then places.
    """
    source, label, word, into = _lattice(symbols, starts, words, labels)
    arcs, places = source.shape[0], into.shape[0] - 1
    count = rows.shape[0]
    back = np.full((count, arcs + places), -1, np.int32)
    on_arc, at_place = np.full(arcs, _NEVER, np.float32), np.full(places, _NEVER, np.float32)
    next_arc, next_place = on_arc.copy(), at_place.copy()
    at_place[0] = np.float32(0.0)  # before the first row, as if after a blank
    for t in range(count):
        row = rows[t]
        blank = log_probs[row, 0]
        for n in range(places):
            best, come = at_place[n], arcs + n
            for a in range(into[n], into[n + 1]):
                if on_arc[a] > best:
                    best, come = on_arc[a], a
            next_place[n] = best + blank
            back[t, arcs + n] = come
        for a in range(arcs):
            n = source[a]
            best, come = on_arc[a], a
            if at_place[n] > best:
                best, come = at_place[n], arcs + n
            for b in range(into[n], into[n + 1]):
                if on_arc[b] > best and label[b] != label[a]:
                    best, come = on_arc[b], b
            next_arc[a] = best + log_probs[row, label[a]]
            back[t, a] = come
        on_arc, next_arc = next_arc, on_arc
        at_place, next_place = next_place, at_place
    best, at = at_place[places - 1], arcs + places - 1
    for a in range(into[places - 1], into[places]):
        if on_arc[a] > best:
            best, at = on_arc[a], a
    if best < np.float32(IMPOSSIBLE):
        return np.float64(best)
    for w in range(words):
        word_start[w], word_end[w], confidence[w] = -1, -1, 0.0
    peak = _NEVER
    for t in range(count - 1, -1, -1):
        come = back[t, at]
        if at < arcs and word[at] >= 0:
            w = word[at]
            peak = max(peak, log_probs[rows[t], label[at]])
            if word_end[w] < 0:
                word_end[w] = frames[t] + 1
                confidence[w] = 0.0
            word_start[w] = frames[t]
            if come != at or t == 0:
                confidence[w] = min(confidence[w], np.float64(peak))
                peak = _NEVER
        at = come
    for w in range(words):
        confidence[w] = min(1.0, np.exp(confidence[w]))
    return np.float64(best)


@allocating_kernel
def align_characters(
    log_probs: np.ndarray, rows: np.ndarray, frames: np.ndarray, symbols: np.ndarray, starts: np.ndarray, words: int,
    separator: int, word_start: np.ndarray, word_end: np.ndarray, confidence: np.ndarray,
) -> Any:  # fmt: skip
    """As `align_pieces`, if each label is a character: the text is a chain, with optional separators at both ends.

    `on[:, j]` are the paths that end in label `chain[j]`, `after[:, j]` those with a blank after it. The first index
    alternates between this row and the next one. The loops over the chain have no branches, so that they vectorize.
    """
    width = log_probs.shape[1] - 1
    extra = 1 if separator <= width else 0
    length = symbols.shape[0] + 2 * extra
    # Fill arrays in loops, since each numpy function used takes a tenth of a second to compile.
    chain = np.empty(length + 1, np.int64)
    chain[0], chain[1], chain[length] = 0, separator, separator
    for j in range(symbols.shape[0]):
        chain[1 + extra + j] = symbols[j] if symbols[j] != 0 else separator
    on, after = np.empty((2, length + 1), np.float32), np.empty((2, length + 1), np.float32)
    repeated, emitted = np.empty(length + 1, np.float32), np.empty(length + 1, np.float32)
    for j in range(length + 1):
        on[0, j], on[1, j], after[0, j], after[1, j] = _NEVER, _NEVER, _NEVER, _NEVER
        # A repeated label needs a blank in between.
        repeated[j] = _NEVER if j < 2 or chain[j] == chain[j - 1] else np.float32(0.0)
    after[0, 0], after[0, extra] = np.float32(0.0), np.float32(0.0)
    count = rows.shape[0]
    came_on, came_after = np.empty((count, length + 1), np.int8), np.empty((count, length + 1), np.int8)
    for t in range(count):
        now, then = t & 1, 1 - (t & 1)
        row = rows[t]
        blank = log_probs[row, 0]
        for j in range(1, length + 1):
            emitted[j] = log_probs[row, chain[j]]
        after[then, 0] = after[now, 0] + blank
        for j in range(1, length + 1):
            stay, step_on = after[now, j], on[now, j]
            came_after[t, j] = step_on > stay
            after[then, j] = max(stay, step_on) + blank
        for j in range(1, length + 1):
            stay, from_blank, from_label = on[now, j], after[now, j - 1], on[now, j - 1] + repeated[j]
            best = max(stay, max(from_blank, from_label))
            came_on[t, j] = (best > stay) * (1 + (from_label > from_blank))
            on[then, j] = best + emitted[j]
    last = count & 1
    at, in_blank, best = length, True, after[last, length]
    for j in range(length - extra, length + 1):
        if after[last, j] > best:
            at, in_blank, best = j, True, after[last, j]
        if on[last, j] > best:
            at, in_blank, best = j, False, on[last, j]
    if best < np.float32(IMPOSSIBLE):
        return np.float64(best)
    for w in range(words):
        confidence[w] = 0.0
    w, peak = words - 1, _NEVER
    ends_word = True  # the next label, going back, is the last one of word w
    for t in range(count - 1, -1, -1):
        if in_blank:
            in_blank = came_after[t, at] == 0
            continue
        come = came_on[t, at]
        inside = extra < at <= length - extra and symbols[at - 1 - extra] != 0
        if inside:
            if ends_word:
                word_end[w], ends_word = frames[t] + 1, False
            word_start[w] = frames[t]
            peak = max(peak, log_probs[rows[t], chain[at]])
        if come != 0:  # the first frame of this label
            if inside:
                confidence[w] = min(confidence[w], np.float64(peak))
                peak = _NEVER
                if at - 1 - extra == starts[w]:
                    w, ends_word = w - 1, True
            at -= 1
            in_blank = come == 1
    for w in range(words):
        confidence[w] = min(1.0, np.exp(confidence[w]))
    return np.float64(best)


def time_words(
    log_probs: np.ndarray, rows: np.ndarray, frames: np.ndarray, symbols: np.ndarray, starts: np.ndarray,
    ended: np.ndarray, words: int, labels: LabelsBySymbol,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """First frame, one past the last frame, and confidence of each of `words` words (at least one).

    Row `rows[k]` of `log_probs` is frame `frames[k]`; word w spells `symbols[starts[w]:starts[w + 1] - 1]`, and the
    search ended it in frame `ended[w]`. A text too long for a single alignment is cut after every 50 words at the frame
    where the search ended the word, and aligned in parts; a part that does not fit between its cuts is joined with the
    next one.
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
            inputs = log_probs, rows[row:stop], frames[row:stop], spelled, spelled_starts, count
            outputs = begins[which], ends[which], confidences[which]
            if labels.plain:
                best = align_characters(*inputs, labels.separator, *outputs)
            else:
                best = align_pieces(*inputs, labels, *outputs)
            if best > IMPOSSIBLE or last:
                break
            count = min(count + _PART, words - word)
        if best <= IMPOSSIBLE and word > 0:  # an earlier cut left too few frames for the rest: align without cuts
            part, word, row = words, 0, 0
            continue
        word, row = word + count, stop
    return begins, ends, confidences


def align_text(
    alphabet: Alphabet, labels: LabelsBySymbol, log_probs: np.ndarray, text: str, frame_seconds: float
) -> tuple[Word, ...]:
    """The words of a text with times (seconds) and confidences; () if they do not fit in the emissions.

    `log_probs` (time, vocab) are natural log-probabilities. For decoders that give no times themselves.
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
