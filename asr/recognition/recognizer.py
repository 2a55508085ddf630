"""A loaded model that turns recordings into transcripts, one at a time or many in batches of similar length."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from asr.audio.read import Audio, AudioStream, RawFormat, channel_count
from asr.decoding.confidence import calibration_from_dict
from asr.decoding.interface import Decoder, reads_states
from asr.decoding.make import DecodingConfig, make_decoder
from asr.model.checkpoint import ModelFile, check_task, load_model, read_metadata
from asr.recognition.acoustics import (
    BATCH_SECONDS,
    SILENCE,
    Acoustics,
    RecordingEmissions,
    Windows,
    choose_device,
    longest_piece,
    recognize_long,
    stitched,
    streamed,
)
from asr.recognition.inputs import Recording, as_recording
from asr.recognition.loading import (
    LoadedRecording,
    Waveform,
    load_recording,
    open_recording,
    read_ahead,
    read_recording,
    rereadable,
)
from asr.types import AsrError, Failure, Hypothesis, Transcript, UsageError, Word, in_words

BATCHES_SORTED = 4  # recordings are sorted by length within this many batches: less padding, but later results
READING_COST = 0.1  # seconds of audio added per recording, because failures and short clips add up, too
MINIMUM_WORD = 0.001  # seconds that a word at the very end of its recording lasts at least


Loaded = TypeVar("Loaded", bound="Recognizer")


class Recognizer:
    """A model file on a device with a decoder (default: that of `DecodingConfig.for_model`)."""

    classifies = False

    def __init__(self, model: ModelFile, decoder: Decoder | None = None) -> None:
        self.model_file = model
        self.acoustics = Acoustics(model)
        self.acoustic_model = self.acoustics.model
        self.tokenizer = model.tokenizer
        self.normalizer = model.normalizer
        self.rate = self.acoustics.rate
        self.frame_seconds = self.acoustics.frame_seconds
        self._decoder = decoder
        self.calibration = calibration_from_dict(model.training.get("confidence"))  # of word confidences
        self.windows: Windows | None = Windows()  # for long recordings; None: every recording in one piece
        self.on_text: Callable[[Recording, str], None] | None = None  # called as the text of a long recording grows
        self.source_rates: Counter[int] = Counter()  # recordings read at each sampling rate, to report resampling

    @classmethod
    def load(
        cls: type[Loaded], path: str | Path, device: str = "auto", threads: int | None = None, **decoding: Any
    ) -> Loaded:
        """Open a model file; see asr.load. Raises UsageError for a model of another task."""
        config = DecodingConfig(**decoding)
        config.check()
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, found {threads}")
            torch.set_num_threads(threads)
        check_task(path, read_metadata(path), cls.classifies)
        recognizer = cls(load_model(path, choose_device(device)))
        if decoding:
            recognizer.decode_with(config, warnings.warn)
        return recognizer

    @property
    def decoder(self) -> Decoder:
        """What turns emissions into text; the default is made on first use, and imports numba."""
        if self._decoder is None:
            self.decode_with(DecodingConfig())
            assert self._decoder is not None
        return self._decoder

    @decoder.setter
    def decoder(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode_with(self, config: DecodingConfig, warn: Callable[[str], None] = lambda message: None) -> None:
        """Make the decoder of these options; see `make_decoder`."""
        self._decoder = make_decoder(config, self.tokenizer, self.frame_seconds, warn, self.model_file)

    @property
    def device(self) -> torch.device:
        return self.acoustics.device

    @property
    def longest(self) -> float | None:
        """The longest recording, in seconds, that is recognized in one piece; None: any length."""
        return None if self.windows is None else longest_piece(self.windows, self.model_file.training)

    def transcribe(
        self, source: Any, *, channel: str | int = "mix", nbest: int = 1, raw: RawFormat | None = None
    ) -> Transcript:
        """Transcribe one recording: a path, the bytes of a file, a file object, or `(samples, rate)`.

        `channel` is "mix" or a channel number from 0; for "each" use `transcribe_many`. Word times are in seconds from
        the start of the recording. Raises AudioError, naming the file, if there is nothing to transcribe.
        """
        recording = rereadable(as_recording(source))
        channel = recording.channel_or(channel)
        if channel == "each":
            raise UsageError("transcribe() returns one transcript: use transcribe_many(..., channel='each')")
        audio = read_recording(recording, self.rate, channel, raw, self.longest)
        if audio is None:
            return self._transcribe_long(recording, channel, None, nbest, raw, BATCH_SECONDS[self.device.type])
        states = reads_states(self.decoder)
        [utterance] = self.acoustics.emissions_unless_silent([audio.samples], audio.silent[0], states)
        hypotheses = self.decoder.decode(utterance)[: max(nbest, 1)]
        return self._transcript(recording, audio, None, audio.silent[0], hypotheses)

    def transcribe_many(
        self,
        sources: Iterable[Any],
        *,
        channel: str | int = "mix",
        nbest: int = 1,
        raw: RawFormat | None = None,
        batch_seconds: float | None = None,
        workers: int | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe many recordings, in input order; one that cannot be transcribed gives a Failure.

        `sources` may also hold manifest rows and Recordings, whose windows and channels are respected. With channel
        "each", every channel of a recording gives a Transcript with its `channel` set. Audio is read ahead by `workers`
        threads and recognized in batches of up to `batch_seconds` of padded audio (default: 60 on CPU, 600 on CUDA).
        """
        recordings = map(as_recording, sources)
        for _, result in self.recognize(
            recordings, channel=channel, nbest=nbest, raw=raw, batch_seconds=batch_seconds, workers=workers
        ):
            yield from [result] if isinstance(result, Failure) else result

    def recognize(
        self,
        recordings: Iterable[Recording],
        *,
        channel: str | int = "mix",
        nbest: int = 1,
        raw: RawFormat | None = None,
        batch_seconds: float | None = None,
        workers: int | None = None,
    ) -> Iterator[tuple[Recording, list[Transcript] | Failure]]:
        """Like `transcribe_many`, but yields recordings with their transcripts: one, or with "each" one per channel."""
        seconds = BATCH_SECONDS[self.device.type] if batch_seconds is None else batch_seconds
        if not seconds > 0:
            raise UsageError(f"batch seconds must be positive, found {seconds:g}")
        loaded = read_ahead(
            recordings,
            lambda recording: load_recording(recording, self.rate, channel, raw, self.longest),
            cost=lambda item: item.seconds + READING_COST,
            limit=seconds * BATCHES_SORTED,
            workers=workers or min(4, os.cpu_count() or 1),
        )
        waiting: list[LoadedRecording] = []
        waiting_seconds = 0.0
        for item in loaded:
            if item.audio is None:  # too long for a batch: recognized by itself, after the earlier ones
                yield from self._recognize_short(waiting, seconds, nbest)
                waiting, waiting_seconds = [], 0.0
                yield item.recording, self._recognize_long(item.recording, channel, nbest, raw, seconds)
                continue
            waiting.append(item)
            waiting_seconds += item.seconds + READING_COST
            if waiting_seconds >= seconds * BATCHES_SORTED:
                yield from self._recognize_short(waiting, seconds, nbest)
                waiting, waiting_seconds = [], 0.0
        yield from self._recognize_short(waiting, seconds, nbest)

    def emissions(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities (time, vocab) float32 of waveforms (samples,) at the model's rate, as one padded batch."""
        return self.acoustics.emissions(samples)

    def emissions_of(
        self, source: Any, *, channel: str | int = "mix", raw: RawFormat | None = None
    ) -> RecordingEmissions:
        """Log-probabilities of one channel of a recording of any length; a long one is read window by window.

        Raises UsageError for a model without a trained CTC layer.
        """
        self.model_file.need_ctc("alignment")
        recording = rereadable(as_recording(source))
        with open_recording(recording, self.rate, recording.channel_or(channel), raw) as samples:
            if self.windows is None or samples.seconds <= longest_piece(self.windows, self.model_file.training):
                waveform = samples.read().samples
                [log_probs] = self.acoustics.emissions_unless_silent([waveform], samples.silent)
            else:
                log_probs = np.concatenate([*stitched(self.acoustics, samples, self.windows, self.windows.longest)])
            silence = (SILENCE,) if samples.silent else ()
            return RecordingEmissions(log_probs, samples.duration, (*samples.warnings, *silence))

    def _recognize_long(
        self, recording: Recording, channel: str | int, nbest: int, raw: RawFormat | None, batch_seconds: float
    ) -> list[Transcript] | Failure:
        chosen = recording.channel_or(channel)
        try:
            if chosen != "each":
                return [self._transcribe_long(recording, chosen, None, nbest, raw, batch_seconds)]
            return [
                self._transcribe_long(recording, number, number, nbest, raw, batch_seconds)
                for number in range(channel_count(recording.source, raw))
            ]
        except OSError:  # from `on_text`, which cannot print; errors in reading are AudioErrors
            raise
        except Exception as error:
            return recording.failure(error)

    def _transcribe_long(
        self,
        recording: Recording,
        read_channel: str | int,
        channel: int | None,
        nbest: int,
        raw: RawFormat | None,
        batch_seconds: float,
    ) -> Transcript:
        on_text = self.on_text
        live = recording.live and not reads_states(self.decoder)  # such a decoder needs whole windows
        with open_recording(recording, self.rate, read_channel, raw) as samples:
            hypotheses = recognize_long(
                self.acoustics,
                self.decoder,
                samples,
                self.windows or Windows(),
                nbest=nbest,
                batch_seconds=batch_seconds,
                on_text=None if on_text is None else lambda text: on_text(recording, text),
                emissions=streamed(self.acoustics, samples) if live else None,
            )
            return self._transcript(recording, samples, channel, samples.silent, hypotheses)

    def _recognize_short(
        self, items: list[LoadedRecording], batch_seconds: float, nbest: int
    ) -> Iterator[tuple[Recording, list[Transcript] | Failure]]:
        """Recognize recordings that are in memory, in batches of similar length, and yield them in order."""
        waveforms = [waveform for item in items for waveform in item.waveforms]
        hypotheses: list[list[Hypothesis] | AsrError] = [[] for _ in waveforms]
        states, acoustics = reads_states(self.decoder), self.acoustics
        for batch in _batches(waveforms, batch_seconds * self.rate, acoustics.full):
            emissions = acoustics.emissions_or_errors([waveforms[i].samples for i in batch], states)
            for place, i in enumerate(batch):
                if waveforms[i].silent:
                    emissions[place] = acoustics.silence(len(waveforms[i].samples), states)
            for i, decoded in zip(batch, self._decode(emissions), strict=True):
                hypotheses[i] = decoded
        remaining = iter(hypotheses)
        for item in items:
            channels = [(waveform, next(remaining)) for waveform in item.waveforms]
            yield item.recording, self._transcripts(item, channels, nbest)

    def _decode(self, emissions: Sequence[Any]) -> list[list[Hypothesis] | AsrError]:
        """The hypotheses of each utterance of a batch, or an error in their place."""
        many = getattr(self.decoder, "decode_many", None)
        if many is not None:
            with suppress(Exception):  # the loop below finds out which utterance caused it
                return many(emissions, errors_as_values=True)
        results: list[list[Hypothesis] | AsrError] = []
        for log_probs in emissions:
            try:
                results.append(log_probs if isinstance(log_probs, AsrError) else self.decoder.decode(log_probs))
            except AsrError as error:
                results.append(error)
            except Exception as error:
                results.append(AsrError(in_words(error)))
        return results

    def _transcripts(
        self, item: LoadedRecording, channels: Sequence[tuple[Waveform, list[Hypothesis] | AsrError]], nbest: int
    ) -> list[Transcript] | Failure:
        """The transcripts of a recording's channels, or a Failure."""
        if not isinstance(item.audio, Audio):
            assert item.audio is not None
            return item.audio
        transcripts = []
        for waveform, hypotheses in channels:
            if isinstance(hypotheses, AsrError):
                return item.recording.failure(hypotheses)
            best = hypotheses[: max(nbest, 1)]
            channel, _, silent = waveform
            transcripts.append(self._transcript(item.recording, item.audio, channel, silent, best))
        return transcripts

    def _transcript(
        self,
        recording: Recording,
        audio: Audio | AudioStream,
        channel: int | None,
        silent: bool,
        hypotheses: Sequence[Hypothesis],
    ) -> Transcript:
        """The transcript of hypotheses, with word times inside the recording and calibrated confidences."""
        if not channel:  # once for all channels of a recording
            self.source_rates[audio.source_rate] += 1
        fitted = [replace(hypothesis, words=fit_words(hypothesis.words, audio.duration)) for hypothesis in hypotheses]
        if calibration := self.calibration:
            for i, hypothesis in enumerate(fitted):
                words = (replace(word, confidence=calibration(word.confidence)) for word in hypothesis.words)
                fitted[i] = replace(hypothesis, words=tuple(words))
        best = fitted[0]
        return Transcript(
            text=best.text,
            words=best.words,
            duration=audio.duration,
            id=recording.id,
            audio_filepath=recording.audio_filepath,
            channel=channel,
            confidence=sum(word.confidence for word in best.words) / max(len(best.words), 1),
            nbest=tuple(fitted),
            warnings=(*audio.warnings, SILENCE) if silent else audio.warnings,
        )


def fit_words(words: Sequence[Word], duration: float) -> tuple[Word, ...]:
    """Move words that end after `duration` back into the recording, keeping 0 <= start < end <= next start.

    A model's last frame may reach past the end of the audio by up to the length of a frame.
    """
    if not words or words[-1].end <= duration:
        return tuple(words)
    shortest = min(MINIMUM_WORD, duration / len(words))
    fitted: list[Word] = []
    limit = duration
    for word in reversed(words):
        end = min(word.end, limit)
        limit = max(min(word.start, end - shortest), 0.0)
        fitted.append(replace(word, start=limit, end=end))
    return tuple(reversed(fitted))


def _batches(
    waveforms: Sequence[Waveform], most_samples: float, full: Callable[[int], int] = int
) -> Iterator[list[int]]:
    """Batches of indices of waveforms, longest first, whose padded size is at most `most_samples`.

    `full` returns how many of the waveforms that fit make a batch.
    """
    batch: list[int] = []
    for i in sorted(range(len(waveforms)), key=lambda i: -len(waveforms[i].samples)):
        if batch and len(waveforms[batch[0]].samples) * (len(batch) + 1) > most_samples:
            count = full(len(batch))
            yield batch[:count]
            batch = batch[count:]
        batch.append(i)
    if batch:
        yield batch
