"""An acoustic model on a device: waveforms in, emissions out, the log-probabilities of the labels frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr.model.checkpoint import ModelFile
from asr.model.shapes import fast_rows
from asr.types import AsrError, UsageError, in_words

BATCH_SECONDS = {"cpu": 60.0, "cuda": 600.0}  # padded audio per batch on each kind of device
CERTAIN = 1.0 - 1e-6  # probability given to the label of a frame that no model emitted
SILENCE = "silence: every sample has the same value, there is nothing to recognize"


@dataclass(frozen=True)
class RecordingEmissions:
    """Emissions (time, vocab) of one channel of a recording, its duration in seconds, and what was wrong with it."""

    log_probs: np.ndarray
    duration: float
    warnings: tuple[str, ...]


class Acoustics:
    """The model of a model file, ready to recognize: `rate` in hertz, `stride` in samples per output frame."""

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
        """How many of `count` waiting waveforms make a batch that needs no filling up; all, where they are too few."""
        return count - count % fast_rows(self.device) or count

    def emissions(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities (time, vocab) float32 of waveforms (samples,) at the model's rate, as one padded batch."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64)
        padded = torch.zeros(len(waveforms), int(lengths.max()))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        with torch.inference_mode():
            log_probs, frames = self.model(padded.to(self.device), lengths.to(self.device))
        arrays = log_probs.float().cpu().numpy()
        return [array[:count] for array, count in zip(arrays, frames.tolist(), strict=True)]

    def emissions_or_errors(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray | AsrError]:
        """The emissions of a batch or, where the whole batch fails, of each waveform alone, with an error if it fails.

        What usually fails is memory: a batch that does not fit goes through one by one.
        """
        try:
            return [*self.emissions(waveforms)]
        except AssertionError:  # a mistake of ours, not of the input
            raise
        except Exception as error:
            problem, out_of_memory = in_words(error), _out_of_memory(error)
        # Outside the handler: the traceback would keep the tensors of the failed batch in memory.
        if out_of_memory and self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(waveforms) > 1:
            return [result for waveform in waveforms for result in self.emissions_or_errors([waveform])]
        if out_of_memory and self.model.row_multiple != 1 < fast_rows(self.device):
            self.model.row_multiple = 1  # rows that fill up a batch need memory, too
            try:
                return self.emissions_or_errors(waveforms)
            finally:
                self.model.row_multiple = None
        if out_of_memory:
            minutes = len(waveforms[0]) / self.rate / 60
            problem = f"not enough memory on {self.device.type} for {minutes:.1f} minutes in one piece"
        return [AsrError(problem)]

    def silence(self, samples: int) -> np.ndarray:
        """Blank emissions for a constant signal: no model was trained on one, and some make letters of it."""
        return self.certain(0, self.model.output_length(samples))

    def certain(self, label: int, frames: int) -> np.ndarray:
        """Emissions (frames, vocab) that are sure of one label."""
        row = np.full(len(self.labels), np.log((1.0 - CERTAIN) / (len(self.labels) - 1)), dtype=np.float32)
        row[label] = np.log(CERTAIN)
        return np.tile(row, (frames, 1))


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


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
