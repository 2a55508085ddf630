"""An acoustic model on a device: recordings in, emissions (the log-probabilities of the labels in each frame) out.

Long recordings are recognized in bounded memory: in windows, whose emissions are joined and decoded as one. Windows are
about as long as the utterances that the model was trained on, as far as pauses allow: they begin and end in a pause,
and the part of a long pause between two windows is blank. Where nobody pauses, windows meet at the quietest moment near
their ends and overlap: each is recognized with context on both sides, and the emissions of the context are discarded,
so that what is kept was recognized as in the middle of a recording. All windows begin at multiples of the model's
stride, so that their frames fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asr.audio.read import AudioStream
from asr.decoding.interface import Decoder, Encoded, begin_stream, reads_states
from asr.model.acoustic import out_of_memory
from asr.model.checkpoint import ModelFile
from asr.model.shapes import fast_rows
from asr.model.streaming import AcousticStream
from asr.recognition.windows import SHORTEST_UTTERANCE, Grid, Window, cut_windows
from asr.types import AsrError, ConfigError, Hypothesis, UsageError, in_words

BATCH_SECONDS = {"cpu": 60.0, "cuda": 600.0}  # padded audio per batch on each kind of device
CERTAIN = 1.0 - 1e-6  # probability of the label in a frame that is made up, not emitted by a model
SILENCE = "silence: every sample has the same value, there is nothing to recognize"


@dataclass(frozen=True)
class RecordingEmissions:
    """Emissions (time, vocab) of one channel of a recording, its duration in seconds, and warnings about it."""

    log_probs: np.ndarray
    duration: float
    warnings: tuple[str, ...]


class Acoustics:
    """The model of a model file, in evaluation mode: `rate` in hertz, `stride` in samples per output frame."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.model = file.model.eval()
        self.labels = file.tokenizer.labels  # the blank first
        self.rate = file.feature_config.rate
        self.stride = file.model.stride
        self.frame_seconds = file.model.frame_seconds

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def full(self, count: int) -> int:
        """How many of `count` waveforms make a batch that needs no filler rows; all of them if there are too few."""
        return count - count % fast_rows(self.device) or count

    def emissions(self, waveforms: Sequence[np.ndarray], states: bool = False) -> list[Any]:
        """Log-probabilities (time, vocab) float32 of waveforms (samples,) at the model's rate, as one padded batch.

        With `states`, Encoded: with the states of the encoder, for decoders that read them.
        """
        lengths = torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64)
        padded = torch.zeros(len(waveforms), int(lengths.max()))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        with torch.inference_mode():
            outputs = self.model.outputs(padded.to(self.device), lengths.to(self.device))
        log_probs = _rows(outputs.log_probs, outputs.lengths)
        return [*map(Encoded, log_probs, _rows(outputs.states, outputs.lengths))] if states else log_probs

    def emissions_or_errors(self, waveforms: Sequence[np.ndarray], states: bool = False) -> list[Any]:
        """The emissions of a batch or, if the whole batch fails, of each waveform alone, or an error in its place.

        With `states` they are Encoded. The usual failure is a lack of memory, so one waveform may fit where all do not.
        """
        try:
            return self.emissions(waveforms, states)
        except AssertionError:  # a bug, not a bad input
            raise
        except Exception as error:
            problem, no_memory = in_words(error), out_of_memory(error)
        # Outside the handler, because its traceback would keep the tensors of the failed batch in memory.
        if no_memory and self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(waveforms) > 1:
            return [result for waveform in waveforms for result in self.emissions_or_errors([waveform], states)]
        rows = self.model.row_multiple
        if no_memory and rows != 1 and fast_rows(self.device) > 1:
            self.model.row_multiple = 1  # filler rows need memory, too
            try:
                return self.emissions_or_errors(waveforms, states)
            finally:
                self.model.row_multiple = rows
        if no_memory:
            minutes = len(waveforms[0]) / self.rate / 60
            problem = f"not enough memory on {self.device.type} for {minutes:.1f} minutes in one piece"
        return [AsrError(problem)]

    def emissions_unless_silent(self, waveforms: Sequence[np.ndarray], silent: bool, states: bool = False) -> list[Any]:
        """The emissions of a batch, blank if it is a constant signal. Raises AsrError if a waveform fails."""
        if silent or not waveforms:
            return [self.silence(len(waveform), states) for waveform in waveforms]
        results = self.emissions_or_errors(waveforms, states)
        if errors := [result for result in results if isinstance(result, AsrError)]:
            raise AsrError(f"{errors[0]}; choose shorter windows (--chunk-length)")
        return results

    def silence(self, samples: int, states: bool = False) -> Any:
        """Blank emissions for a constant signal: no model was trained on one, and some recognize letters in it.

        With `states`, an Encoded without states, followed by as many frames of silence as the model would emit.
        """
        frames = self.model.output_length(samples)
        if not states:
            return self.certain(0, frames)
        return Encoded(self.certain(0, 0), np.zeros((0, self.model.encoder.output_size), np.float32), after=frames)

    def certain(self, label: int, frames: int) -> np.ndarray:
        """Emissions (frames, vocab) that are certain of one label."""
        row = np.full(len(self.labels), np.log((1.0 - CERTAIN) / (len(self.labels) - 1)), dtype=np.float32)
        row[label] = np.log(CERTAIN)
        return np.tile(row, (frames, 1))


def _rows(tensor: torch.Tensor, lengths: torch.Tensor) -> list[np.ndarray]:
    """The rows (time, width) float32 of a tensor (batch, time, width), without their padding."""
    return [row[:count] for row, count in zip(tensor.float().cpu().numpy(), lengths.tolist(), strict=True)]


def choose_device(name: str) -> str:
    """Resolve `auto` to CUDA if available, else CPU. Raises UsageError for a device that does not exist."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in BATCH_SECONDS:
        raise UsageError(f"device '{name}' is not one of auto, cpu, cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available to PyTorch: use --device cpu, or see `asr doctor`")
    return name


USUAL_UTTERANCE = 10.0  # seconds; for models without a record of what they were trained on
# A window ends in the longest pause between these multiples of the usual length of a training utterance.
LEAST_OF_USUAL, MOST_OF_USUAL = 0.25, 2.0


@dataclass(frozen=True)
class Windows:
    """Windows of at most `length` seconds, plus `overlap` seconds on each side where there is no pause.

    Recordings of up to `longest` seconds may be recognized in one piece; see `longest_piece`. Raises UsageError for
    values that cannot work.
    """

    length: float = 30.0
    overlap: float = 5.0

    def __post_init__(self) -> None:
        if not self.length >= 1.0:
            raise UsageError(f"the length of a window must be at least 1 s, found {self.length:g}")
        if not 0.0 <= self.overlap <= self.length:
            raise UsageError(f"the overlap of windows must lie between 0 and their length, found {self.overlap:g} s")

    @property
    def longest(self) -> float:
        return self.length + 2 * self.overlap


def recognize_long(
    acoustics: Acoustics,
    decoder: Decoder,
    samples: AudioStream,
    windows: Windows,
    *,
    nbest: int = 1,
    batch_seconds: float = 60.0,
    on_text: Callable[[str], None] | None = None,
    emissions: Iterable[np.ndarray] | None = None,
) -> list[Hypothesis]:
    """Recognize one channel of a recording window by window and decode the joined emissions once; the best first.

    `emissions` of the whole recording, in blocks, replace those of windows. A decoder that reads the encoder's states
    decodes each window by itself. `on_text` is called with all words that will not change any more, each time there are
    new ones. Raises AudioError, and AsrError if there is not enough memory for a window.
    """
    stream = begin_stream(decoder)
    reported = ""
    for block in emissions or stitched(acoustics, samples, windows, batch_seconds, reads_states(decoder)):
        stream.feed(block)
        if on_text is not None and (stable := stream.stable()) != reported:
            reported = stable
            on_text(stable)
    return stream.finish(nbest)


def stitched(
    acoustics: Acoustics, samples: Iterable[np.ndarray], windows: Windows, batch_seconds: float, states: bool = False
) -> Iterator[Any]:
    """Log-probabilities (time, vocab) of successive windows; joined, they have as many frames as the whole recording.

    With `states`, Encoded: each window by itself, without the silence around it. `samples` are blocks (time,) at the
    model's rate, of which at most a batch is held. Windows are blank as long as all samples so far are the same.
    """
    kept = _kept_states if states else _kept
    batch: list[Window] = []
    for window in cut_windows(iter(samples), grid_of(acoustics, windows)):
        while batch:
            longest = max(len(w.samples) for w in [*batch, window])
            if longest * (len(batch) + 1) <= batch_seconds * acoustics.rate:
                break
            count = acoustics.full(len(batch))
            yield from kept(acoustics, batch[:count], bool(getattr(samples, "silent", False)))
            batch = batch[count:]
        batch.append(window)
    if batch:
        yield from kept(acoustics, batch, bool(getattr(samples, "silent", False)))


def longest_piece(windows: Windows, training: dict[str, Any]) -> float:
    """The longest recording, in seconds, that a model with this training summary recognizes in one piece.

    A recording more than twice as long as anything the model was trained on is recognized in windows.
    """
    if not training.get("train_longest"):
        return windows.longest
    return min(windows.longest, 2.0 * float(training["train_longest"]) * _joined_at_most(training))


def grid_of(acoustics: Acoustics, windows: Windows) -> Grid:
    """The sizes of windows in frames of the model, based on its training utterances, joined ones included."""
    training = acoustics.file.training
    usual = usual_seconds(training) * _joined_at_most(training)
    per_second = acoustics.rate / acoustics.stride
    length = max(1, round(windows.length * per_second))
    shortest = max(1, round(max(SHORTEST_UTTERANCE, LEAST_OF_USUAL * usual) * per_second))
    return Grid(
        acoustics.rate,
        acoustics.stride,
        length,
        overlap=round(windows.overlap * per_second),
        shortest=min(shortest, length // 2),
        usual=min(round(MOST_OF_USUAL * usual * per_second), length),
    )


def usual_seconds(training: dict[str, Any]) -> float:
    """The mean length in seconds of the utterances that a model with this training summary was trained on."""
    if training.get("train_utterances") and training.get("train_hours"):
        return 3600.0 * float(training["train_hours"]) / float(training["train_utterances"])
    return USUAL_UTTERANCE


def _joined_at_most(training: dict[str, Any]) -> int:
    """The most utterances that were joined into one in training."""
    augment = training.get("config", {}).get("augment", {})
    return int(augment.get("join_up_to", 2)) if augment.get("join") else 1


def _kept(acoustics: Acoustics, batch: list[Window], silent: bool) -> Iterator[np.ndarray]:
    """The emissions of the frames that each window of a batch keeps, with the silence around them."""
    waveforms = [window.samples for window in batch if len(window.samples)]
    results = iter(acoustics.emissions_unless_silent(waveforms, silent))
    for window in batch:
        kept = next(results)[window.first : window.last] if len(window.samples) else acoustics.certain(0, 0)
        joined = np.concatenate([acoustics.certain(0, window.before), kept, acoustics.certain(0, window.after)])
        if window.ends_in_pause and " " in acoustics.labels and len(joined):
            # Utterances begin and end without a space, so only this frame separates their words.
            joined[-1:] = acoustics.certain(acoustics.labels.index(" "), 1)
        if len(joined):
            yield joined


def _kept_states(acoustics: Acoustics, batch: list[Window], silent: bool) -> Iterator[Encoded]:
    """What each window of a batch keeps, with its states."""
    waveforms = [window.samples for window in batch if len(window.samples)]
    results = iter(acoustics.emissions_unless_silent(waveforms, silent, states=True))
    for window in batch:
        encoded = next(results) if len(window.samples) else acoustics.silence(0, states=True)
        kept = slice(window.first, window.last)
        silence = window.after + len(range(encoded.after)[kept])
        yield Encoded(encoded.log_probs[kept], encoded.states[kept], window.before, silence)


def can_stream(acoustics: Acoustics, decoder: Decoder) -> bool:
    """Whether the model and the decoder can recognize a recording as it arrives."""
    if reads_states(decoder):
        return False
    try:
        AcousticStream(acoustics.model)
    except ConfigError:
        return False
    return True


def streamed(acoustics: Acoustics, samples: AudioStream) -> Iterator[np.ndarray]:
    """Log-probabilities (time, vocab), each frame once it is final; blank as long as all samples are the same."""
    stream = AcousticStream(acoustics.model)
    for block in samples:
        yield from _unless_silent(acoustics, stream.feed(torch.from_numpy(block)), samples.silent)
    yield from _unless_silent(acoustics, stream.finish(), samples.silent)


def _unless_silent(acoustics: Acoustics, log_probs: torch.Tensor, silent: bool) -> Iterator[np.ndarray]:
    """The emissions, if there are any; for a constant signal, as many blank ones."""
    if len(log_probs):
        yield acoustics.certain(0, len(log_probs)) if silent else log_probs.cpu().numpy()
