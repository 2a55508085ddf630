"""Forced alignment of a recording with its text: when each word and each token was spoken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from asr.text.normalize import normalizer
from asr.types import AsrError, Transcript, Word

if TYPE_CHECKING:
    from asr.audio.read import RawFormat
    from asr.decoding.align import Alignment
    from asr.recognition.inputs import Recording
    from asr.recognition.recognizer import Recognizer

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

    The text is normalized as the model's training texts were; a word's times reach from the first to the last of its
    tokens and halfway into the gaps around it (see `boundaries`). Times are seconds of the source; a word's confidence
    is the lowest posterior of its tokens. Recordings of any length. Raises AudioError; AlignmentError and TextError for
    a text that is empty, too long or not to be spelled, in one line with the recording's name.
    """
    name = recording.audio_filepath or recording.id
    try:
        spoken, written = spoken_words(text, recognizer.normalizer)
        tokens = recognizer.tokenizer.encode(" ".join(spoken))
        _check_not_empty(tokens)
    except AsrError as error:
        raise type(error)(f"{name}: {error}") from error
    emissions = recognizer.emissions_of(recording, channel=channel, raw=raw)  # its errors name the recording
    try:
        words, spelled = word_times(recognizer, emissions.log_probs, tokens, emissions.duration)
    except AsrError as error:
        raise type(error)(f"{name}: {error}") from error
    words = merge_words(words, written)
    confidence = sum(word.confidence for word in words) / len(words)
    doubt = (f"the text hardly fits the recording (confidence {confidence:.2f})",) if confidence < DOUBTFUL else ()
    return Transcript(
        text=" ".join(word.word for word in words),
        words=tuple(words),
        tokens=tuple(spelled),
        duration=emissions.duration,
        id=recording.id,
        audio_filepath=recording.audio_filepath,
        confidence=confidence,
        warnings=(*emissions.warnings, *doubt),
    )


def word_times(
    recognizer: Recognizer, log_probs: np.ndarray, tokens: Sequence[int], duration: float
) -> tuple[list[Word], list[Word]]:
    """Words (as the tokenizer spells them) and tokens of an utterance, with times in seconds from its first frame."""
    from asr.decoding.align import AlignmentError, boundaries, forced_align, needed_frames

    step = recognizer.frame_seconds
    if needed_frames(tokens) > len(log_probs):
        raise AlignmentError(
            f"the text needs at least {needed_frames(tokens) * step:.1f} s of audio at this model's rate of frames, "
            f"the recording has {duration:.1f} s: is it the right text?"
        )
    alignment = forced_align(log_probs, tokens)
    words = recognizer.tokenizer.words(tokens)
    begins, ends = boundaries(
        [alignment.starts[first] for _, first, _ in words],
        [alignment.ends[last - 1] for _, _, last in words],
        step,
        duration,
    )
    timed = [
        Word(word, float(begin), float(end), float(min(1.0, alignment.posteriors[first:last].min())))
        for (word, first, last), begin, end in zip(words, begins, ends, strict=True)
    ]
    return timed, _token_times(recognizer, alignment, duration)


def spoken_words(text: str, normalizer_name: str) -> tuple[list[str], list[tuple[str, int]]]:
    """The normalized words of a text, and its words as written with how many normalized ones each stands for.

    What is not spoken (a dash on its own) is left out. Where normalizing word by word does not
    give the normalized text, its words stand for themselves.
    """
    normalize = normalizer(normalizer_name)
    spoken = normalize(text).split()
    counted = ((word, len(normalize(word).split())) for word in text.split())
    written = [(word, count) for word, count in counted if count]
    again = [part for word in text.split() for part in normalize(word).split()]
    return spoken, written if again == spoken else [(word, 1) for word in spoken]


def merge_words(words: Sequence[Word], written: Sequence[tuple[str, int]]) -> list[Word]:
    """The words as written, each from the first to the last of the words it stands for."""
    merged, at = [], 0
    for text, count in written:
        parts = words[at : at + count]
        merged.append(Word(text, parts[0].start, parts[-1].end, min(part.confidence for part in parts)))
        at += count
    return merged


def _token_times(recognizer: Recognizer, alignment: Alignment, duration: float) -> list[Word]:
    from asr.decoding.align import boundaries

    labels = recognizer.tokenizer.labels
    begins, ends = boundaries(alignment.starts, alignment.ends, recognizer.frame_seconds, duration)
    return [
        Word(labels[token], float(begin), float(end), float(min(1.0, posterior)))
        for token, begin, end, posterior in zip(alignment.tokens, begins, ends, alignment.posteriors, strict=True)
    ]


def _check_not_empty(tokens: Sequence[int]) -> None:
    from asr.decoding.align import AlignmentError

    if not tokens:
        raise AlignmentError("the text is empty: there is nothing to align")
