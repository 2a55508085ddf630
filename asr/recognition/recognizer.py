"""A loaded model that turns recordings into transcripts: one at a time, or many in batches of similar length."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.audio.read import Audio, RawFormat
from asr.decoding.confidence import calibration_from_dict
from asr.decoding.interface import Decoder
from asr.decoding.make import DecodingConfig, make_decoder
from asr.model.checkpoint import ModelFile, load_model
from asr.recognition.finishing import finished
from asr.recognition.inputs import Recording, as_recording
from asr.recognition.loading import (
    Loaded,
    channels_of,
    failure,
    load_recording,
    name_of,
    read_ahead,
    read_recording,
    rereadable,
)
from asr.recognition.long_form import Emissions, Windows, emissions_of, longest_piece, recognize_long, silenced
from asr.types import AsrError, Failure, Hypothesis, Transcript, UsageError, in_words

BATCH_SECONDS = {"cpu": 60.0, "cuda": 600.0}
WINDOW_BATCHES = 4  # recordings are sorted by length within this many batches: more padding saved, later results


class Recognizer:
    """A model file on a device, with a decoder (the beam search unless another is given)."""

    def __init__(self, model: ModelFile, decoder: Decoder | None = None) -> None:
        self.model_file = model
        self.acoustic_model = model.model.eval()
        self.tokenizer = model.tokenizer
        self.normalizer = model.normalizer
        self.rate = model.feature_config.rate
        self.frame_seconds = model.model.frame_seconds
        self.stride = model.model.stride  # samples per output frame
        self._decoder = decoder
        self.calibration = calibration_from_dict(model.training.get("confidence"))  # of word confidences
        self.windows: Windows | None = Windows()  # of long recordings; None: every recording in one piece
        self.on_text: Callable[[Recording, str], None] | None = None  # called as a long recording's text grows
        self.source_rates: Counter[int] = Counter()  # recordings read at each rate, to say what was resampled

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", threads: int | None = None, **decoding: Any) -> Recognizer:
        """Open a model file; see asr.load."""
        config = DecodingConfig(**decoding)
        config.check()
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, found {threads}")
            torch.set_num_threads(threads)
        recognizer = cls(load_model(path, choose_device(device)))
        if decoding:
            recognizer.decoder = make_decoder(config, recognizer.tokenizer, recognizer.frame_seconds, warnings.warn)
        return recognizer

    @property
    def decoder(self) -> Decoder:
        """What turns emissions into text; the default is made when it is first asked for, and imports numba."""
        if self._decoder is None:
            self._decoder = make_decoder(DecodingConfig(), self.tokenizer, self.frame_seconds)
        return self._decoder

    @decoder.setter
    def decoder(self, decoder: Decoder) -> None:
        self._decoder = decoder

    @property
    def device(self) -> torch.device:
        return next(self.acoustic_model.parameters()).device

    @property
    def longest(self) -> float | None:
        """Seconds of a recording that is recognized in one piece, at most; None: any."""
        return None if self.windows is None else longest_piece(self.windows, self.model_file.training)

    def transcribe(
        self,
        source: Any,
        *,
        channel: str | int = "mix",
        nbest: int = 1,
        raw: RawFormat | None = None,
    ) -> Transcript:
        """Transcribe one recording: a path, the bytes of a file, a file object, or `(samples, rate)`.

        `channel` is "mix" or a channel number from 0; for "each" use `transcribe_many`. Word times are seconds from
        the start of the recording. Raises AudioError naming the file when it holds nothing to transcribe.
        """
        recording = as_recording(source)
        channel = channel if recording.channel is None else recording.channel
        if channel == "each":
            raise UsageError("transcribe() returns one transcript: use transcribe_many(..., channel='each')")
        recording = rereadable(recording)
        audio = read_recording(recording, self.rate, channel, raw, self.longest)
        if audio is None:
            return self._transcribe_long(recording, channel, None, nbest, raw, BATCH_SECONDS[self.device.type])
        self.source_rates[audio.source_rate] += 1
        [log_probs] = self.emissions([audio.samples])
        if audio.silent[0]:
            log_probs = silenced(log_probs)
        return self._transcript(recording, audio, self.decoder.decode(log_probs), None, nbest)

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
        """Transcribe many recordings, yielding in input order; what cannot be transcribed gives a Failure.

        `sources` may hold manifest rows and Recordings too, whose windows and channels are heeded. With channel
        "each" every channel of a recording gives a Transcript with its `channel` set. Audio is read ahead by `workers`
        threads and recognized in batches of up to `batch_seconds` of padded audio (60 on CPU, 600 on CUDA).
        """
        results = self.recognize(
            map(as_recording, sources),
            channel=channel,
            nbest=nbest,
            raw=raw,
            batch_seconds=batch_seconds,
            workers=workers,
        )
        for _, result in results:
            if isinstance(result, Failure):
                yield result
            else:
                yield from result

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
        """As `transcribe_many`, each recording with its transcripts: one, or with channel "each" one per channel."""
        seconds = BATCH_SECONDS[self.device.type] if batch_seconds is None else batch_seconds
        if not seconds > 0:
            raise UsageError(f"batch seconds must be positive, found {seconds:g}")
        window_seconds = seconds * WINDOW_BATCHES
        loaded = read_ahead(
            recordings,
            lambda recording: load_recording(recording, self.rate, channel, raw, self.longest),
            cost=lambda item: item.seconds + 0.1,  # so that failures and the shortest clips fill a window, too
            limit=window_seconds,
            workers=workers or min(4, os.cpu_count() or 1),
        )
        window: list[Loaded] = []
        waiting = 0.0
        for item in loaded:
            if item.audio is None:  # too long for a batch: by itself, after what came before it
                yield from self._recognize_window(window, seconds, nbest)
                window, waiting = [], 0.0
                yield item.recording, self._recognize_long(item.recording, channel, nbest, raw, seconds)
                continue
            window.append(item)
            waiting += item.seconds + 0.1
            if waiting >= window_seconds:
                yield from self._recognize_window(window, seconds, nbest)
                window, waiting = [], 0.0
        yield from self._recognize_window(window, seconds, nbest)

    def emissions(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities (time, vocab) float32 of waveforms (samples,) at the model's rate, as one padded batch."""
        lengths = torch.tensor([len(waveform) for waveform in samples], dtype=torch.int64)
        padded = torch.zeros(len(samples), int(lengths.max()))
        for row, waveform in zip(padded, samples, strict=True):
            row[: len(waveform)] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        with torch.inference_mode():
            log_probs, frames = self.acoustic_model(padded.to(self.device), lengths.to(self.device))
        arrays = log_probs.float().cpu().numpy()
        return [array[:count] for array, count in zip(arrays, frames.tolist(), strict=True)]

    def emissions_of(self, source: Any, *, channel: str | int = "mix", raw: RawFormat | None = None) -> Emissions:
        """Log-probabilities of one channel of a recording of any length, read window by window where it is long."""
        recording = as_recording(source)
        channel = channel if recording.channel is None else recording.channel
        return emissions_of(self, rereadable(recording), name=name_of(recording), channel=channel, raw=raw)

    def _recognize_long(
        self, recording: Recording, channel: str | int, nbest: int, raw: RawFormat | None, batch_seconds: float
    ) -> list[Transcript] | Failure:
        chosen = channel if recording.channel is None else recording.channel
        try:
            channels: list[int | None] = [None]
            if chosen == "each":
                channels = [*range(channels_of(recording, raw))]
            return [
                self._transcribe_long(recording, chosen if c is None else c, c, nbest, raw, batch_seconds)
                for c in channels
            ]
        except AsrError as error:
            name = name_of(recording)
            return failure(recording, str(error) if str(error).startswith(f"{name}: ") else f"{name}: {error}")
        except OSError:  # not of reading, whose errors are AudioError by now: `on_text` cannot print
            raise
        except Exception as error:
            return failure(recording, f"{name_of(recording)}: {in_words(error)}")

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
        result = recognize_long(
            self,
            recording,
            name=name_of(recording),
            channel=read_channel,
            nbest=nbest,
            raw=raw,
            batch_seconds=batch_seconds,
            on_text=None if on_text is None else lambda text: on_text(recording, text),
        )
        if not channel:  # once for all channels
            self.source_rates[result.source_rate] += 1
        return finished(
            recording, result.duration, result.warnings, result.hypotheses, channel, self.calibration, result.silent
        )

    def _recognize_window(
        self, window: list[Loaded], batch_seconds: float, nbest: int
    ) -> Iterator[tuple[Recording, list[Transcript] | Failure]]:
        waveforms = [
            (item, channel, samples) for item in window for channel, samples in item.waveforms()
        ]  # one per channel
        waveforms.sort(key=lambda entry: -len(entry[2]))
        results: dict[tuple[int, int | None], Transcript | Failure] = {}
        for batch in _batches(waveforms, batch_seconds * self.rate):
            emissions = self.emissions_in_memory([samples for _, _, samples in batch])
            for i, (item, channel, _) in enumerate(batch):
                log_probs = emissions[i]
                if item.silent(channel) and not isinstance(log_probs, AsrError):
                    emissions[i] = silenced(log_probs)
            for (item, channel, _), hypotheses in zip(batch, self._decoded(emissions), strict=True):
                results[id(item), channel] = self._result(item, channel, hypotheses, nbest)
        for item in window:
            if isinstance(item.audio, Audio):
                self.source_rates[item.audio.source_rate] += 1
            yield item.recording, _joined(item, [results[id(item), c] for c, _ in item.waveforms()])

    def emissions_in_memory(self, samples: list[np.ndarray]) -> list[np.ndarray | AsrError]:
        """The emissions of a batch; where that fails (memory is short) one by one, with an error for what fails."""
        try:
            return [*self.emissions(samples)]
        except AssertionError:  # our own mistake, not the input's
            raise
        except Exception as error:
            problem, out_of_memory = in_words(error), _out_of_memory(error)
        if out_of_memory and self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(samples) > 1:
            return [result for waveform in samples for result in self.emissions_in_memory([waveform])]
        if out_of_memory:
            minutes = len(samples[0]) / self.rate / 60
            problem = f"not enough memory on {self.device.type} for {minutes:.1f} minutes in one piece"
        return [AsrError(problem)]

    def _decoded(self, emissions: Sequence[np.ndarray | AsrError]) -> list[list[Hypothesis] | AsrError]:
        """Hypotheses of each utterance of a batch, or why there are none: the others go on."""
        many = getattr(self.decoder, "decode_many", None)
        if many is not None:
            with suppress(Exception):  # found again below, one by one
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

    def _result(
        self, item: Loaded, channel: int | None, hypotheses: list[Hypothesis] | AsrError, nbest: int
    ) -> Transcript | Failure:
        assert isinstance(item.audio, Audio)
        if isinstance(hypotheses, AsrError):
            return failure(item.recording, f"{name_of(item.recording)}: {hypotheses}")
        return self._transcript(item.recording, item.audio, hypotheses, channel, nbest)

    def _transcript(
        self, recording: Recording, audio: Audio, hypotheses: list[Hypothesis], channel: int | None, nbest: int
    ) -> Transcript:
        best = hypotheses[: max(nbest, 1)]
        silent = audio.silent[channel or 0]
        return finished(recording, audio.duration, audio.warnings, best, channel, self.calibration, silent)


def choose_device(name: str) -> str:
    """`auto` is CUDA where there is one; raises UsageError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in BATCH_SECONDS:
        raise UsageError(f"device '{name}' is not one of auto, cpu, cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available to PyTorch: use --device cpu, or see `asr doctor`")
    return name


def _batches(
    waveforms: list[tuple[Loaded, int | None, np.ndarray]], most_samples: float
) -> Iterator[list[tuple[Loaded, int | None, np.ndarray]]]:
    """Consecutive runs of waveforms, sorted longest first, whose padded size stays within `most_samples`."""
    batch: list[tuple[Loaded, int | None, np.ndarray]] = []
    for entry in waveforms:
        if batch and len(batch[0][2]) * (len(batch) + 1) > most_samples:
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


def _joined(item: Loaded, results: list[Transcript | Failure]) -> list[Transcript] | Failure:
    """The transcripts of a recording's channels, or what failed."""
    if isinstance(item.audio, Failure):
        return item.audio
    transcripts = []
    for result in results:
        if isinstance(result, Failure):
            return result
        transcripts.append(result)
    return transcripts


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
