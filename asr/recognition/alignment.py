"""Forced alignment of a recording with its text: the times of each word and each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from asr.audio.read import RawFormat
from asr.decoding.align import Alignment, AlignmentError, boundaries, forced_align, needed_frames
from asr.recognition.inputs import Recording
from asr.recognition.recognizer import Recognizer
from asr.text.normalize import normalizer
from asr.types import AsrError, Transcript, Word

DOUBTFUL = 0.2  # mean word confidence below which the text is probably that of another recording


def align_recording(
    recognizer: Recognizer,
    recording: Recording,
    text: str,
    *,
    channel: str | int = "mix",
    raw: RawFormat | None = None,
) -> Transcript:
    """The transcript whose words are those of `text`, as written there, with times, confidences and `tokens`.

    The text is normalized as the model's training texts were. A word lasts from its first to its last token and halfway
    into the gaps around it (see `boundaries`). Times are in seconds from the start of the source; a word's confidence
    is the lowest posterior of its tokens. The recording can be of any length. Raises AudioError, and AlignmentError or
    TextError for a text that is empty, too long or cannot be spelled; messages begin with the recording's name.
    """
    with naming(recording):
        normalized, written = normalized_words(text, recognizer.normalizer)
        tokens = recognizer.tokenizer.encode(" ".join(normalized))
        if not tokens:
            raise AlignmentError("the text is empty: there is nothing to align")
    emissions = recognizer.emissions_of(recording, channel=channel, raw=raw)  # its errors name the recording
    with naming(recording):
        words, token_times, _ = align_tokens(recognizer, emissions.log_probs, tokens, emissions.duration)
    words = merge_words(words, written)
    confidence = sum(word.confidence for word in words) / len(words)
    doubt = (f"the text hardly fits the recording (confidence {confidence:.2f})",) if confidence < DOUBTFUL else ()
    return Transcript(
        text=" ".join(word.word for word in words),
        words=tuple(words),
        tokens=tuple(token_times),
        duration=emissions.duration,
        id=recording.id,
        audio_filepath=recording.audio_filepath,
        confidence=confidence,
        warnings=(*emissions.warnings, *doubt),
    )


@contextmanager
def naming(recording: Recording) -> Iterator[None]:
    """Prefix the messages of errors in the body with the recording's name."""
    try:
        yield
    except AsrError as error:
        raise type(error)(f"{recording.name}: {error}") from error


def align_tokens(
    recognizer: Recognizer, log_probs: np.ndarray, tokens: Sequence[int], duration: float
) -> tuple[list[Word], list[Word], Alignment]:
    """The words (as the tokenizer spells them) and tokens of an utterance, and the alignment behind them.

    Times are in seconds from the first frame of `log_probs` (time, vocab). Raises AlignmentError.
    """
    step = recognizer.frame_seconds
    if needed_frames(tokens) > len(log_probs):
        raise AlignmentError(
            f"the text needs at least {needed_frames(tokens) * step:.1f} s of audio at this model's frame rate, but "
            f"the recording has {duration:.1f} s: is it the right text?"
        )
    alignment = forced_align(log_probs, tokens)
    labels = recognizer.tokenizer.labels
    words = recognizer.tokenizer.words(tokens)

    def timed(spans: Sequence[tuple[str, int, int]]) -> list[Word]:
        """Words from spans of tokens: text, first token, one past the last token."""
        starts = [alignment.starts[first] for _, first, _ in spans]
        ends = [alignment.ends[last - 1] for _, _, last in spans]
        return [
            Word(text, float(start), float(end), float(min(1.0, alignment.posteriors[first:last].min())))
            for (text, first, last), start, end in zip(spans, *boundaries(starts, ends, step, duration), strict=True)
        ]

    times = timed([(labels[token], i, i + 1) for i, token in enumerate(alignment.tokens)])
    return timed(words), times, alignment


def normalized_words(text: str, normalizer_name: str) -> tuple[list[str], list[tuple[str, int]]]:
    """The normalized words of a text, and its words as written, each with the number of normalized words it stands for.

    Words that the normalizer removes (a dash on its own) are left out. If normalizing word by word differs from
    normalizing the whole text, the normalized words replace the written ones.
    """
    normalize = normalizer(normalizer_name)
    normalized = normalize(text).split()
    by_word = [(word, normalize(word).split()) for word in text.split()]
    if [part for _, parts in by_word for part in parts] != normalized:
        return normalized, [(word, 1) for word in normalized]
    return normalized, [(word, len(parts)) for word, parts in by_word if parts]


def merge_words(words: Sequence[Word], written: Sequence[tuple[str, int]]) -> list[Word]:
    """The words as written, each lasting from the first to the last of the normalized words it stands for."""
    merged, at = [], 0
    for text, count in written:
        parts = words[at : at + count]
        merged.append(Word(text, parts[0].start, parts[-1].end, min(part.confidence for part in parts)))
        at += count
    return merged
