"""The encoder `latency-controlled`: bidirectional layers over chunks with bounded look-ahead, also for streaming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from asr.model.blockwise import EncoderStream
from asr.model.cells import MaskedBatchNorm
from asr.model.config import RecurrentConfig
from asr.model.padding import reversal_index, reverse_within_length, valid_frames
from asr.model.recurrent import AfterLayer, RecurrentEncoder, RecurrentLayer, front_stream

CELLS = ("lstm", "gru", "rnn", "rnn-relu")


@dataclass(frozen=True)
class LatencyControlledConfig(RecurrentConfig):
    """The options of `recurrent`, and the sizes of chunks in frames of the front end (40 ms with a subsampling of 4).

    A state is final at the end of its chunk of `chunk` frames plus `chunk_lookahead` frames, whatever the number of
    layers. A run that begins from a trained model may change both.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = (*RecurrentConfig.SHAPELESS, "chunk", "chunk_lookahead")

    encoder: str = "latency-controlled"
    chunk: int = 20
    chunk_lookahead: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 1 or self.chunk_lookahead < 0:
            raise ValueError(
                f"chunk must be at least 1 frame and chunk_lookahead at least 0, "
                f"found {self.chunk} and {self.chunk_lookahead}"
            )
        if not self.bidirectional:
            raise ValueError("latency-controlled layers are bidirectional: for one direction choose encoder recurrent")
        if self.cell not in CELLS:
            raise ValueError(f"latency-controlled layers take cells {', '.join(CELLS)}, found {self.cell}")
        for name in ("time_reduction", "weight_dropout", "zoneout"):
            if getattr(self, name):
                raise ValueError(f"latency-controlled layers have no {name}")


class LatencyControlledLayer(RecurrentLayer):
    """A layer of a latency-controlled bidirectional network (Zhang et al., 2016, "Highway long short-term memory RNNs
    for distant speech recognition", section 4; Xue & Yan, 2017).

    It runs over windows, which are chunks with their look-ahead. The forward cell carries its state from chunk to
    chunk; the backward cell starts from zeros at the end of each window.
    """

    def windows(self, x: Tensor, lengths: Tensor, chunk: int, count: int, state: Any) -> tuple[Tensor, Any]:
        """Run over windows `x` (batch, chunks, frames, input_size), each `chunk` frames after the previous one.

        lengths: (batch, chunks) of the windows; count: frames in all chunks, without the padding of the last one;
        state: of the forward cell before the first chunk (None: zeros).
        Returns the outputs (batch, chunks, frames, output_size) and the state after the last chunk.
        """
        batch, chunks, frames, _ = x.shape
        outputs, states = [], []
        for part in x[:, :, :chunk].unbind(1):
            out, state = self.forward_cell(part, state)
            outputs.append(out)
            states.append(state)
        out = torch.stack(outputs, 1)
        if frames > chunk:
            ahead, _ = self.forward_cell(x[:, :, chunk:].flatten(0, 1), _side_by_side(states))
            out = torch.cat([out, ahead.unflatten(0, (batch, chunks))], dim=2)
        reversal = reversal_index(lengths.flatten(), frames)
        assert self.backward_cell is not None
        backward, _ = self.backward_cell(reverse_within_length(x.flatten(0, 1), reversal))
        backward = reverse_within_length(backward, reversal).unflatten(0, (batch, chunks))
        out = torch.cat([out, backward], dim=-1)
        self.hidden(out[:, :, :chunk].flatten(1, 2)[:, :count])  # for objectives that hook it
        # As one sequence, so that locked dropout and layer drop treat all windows of an utterance alike.
        valid = valid_frames(lengths.flatten(), frames).reshape(batch, chunks * frames)
        out = self.after_cells(out.flatten(1, 2), x.flatten(1, 2), valid)
        return out.unflatten(1, (chunks, frames)), state


def _side_by_side(states: list[Any]) -> Any:
    """Stack cell states, each (1, batch, width) or a tuple of these, to (1, batch * states, width)."""
    if isinstance(states[0], tuple):
        return tuple(_side_by_side([*parts]) for parts in zip(*states, strict=True))
    return torch.stack(states, 2).flatten(1, 2)


class LatencyControlledEncoder(RecurrentEncoder):
    """Batch norm of the features, a front end, latency-controlled layers.

    Every layer runs over the whole window with its look-ahead, so that look-ahead does not add up over layers. Batch
    norm stands in for normalization over the utterance, which streams cannot have.
    """

    layer = LatencyControlledLayer
    config: LatencyControlledConfig

    def __init__(self, config: LatencyControlledConfig, n_mels: int) -> None:
        super().__init__(config, n_mels)
        self.feature_norm = MaskedBatchNorm(n_mels)

    def forward(
        self, features: Tensor, lengths: Tensor, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, mels), lengths (batch,) -> states (batch, ceil(frames / stride), width), lengths.

        `after_layer` gets more rows than the batch has, for the look-ahead frames of the windows.
        """
        x, lengths = self.front(features, lengths)
        chunk, ahead = self.config.chunk, self.config.chunk_lookahead
        chunks = max(1, -(-x.size(1) // chunk))
        padded = functional.pad(x, (0, 0, 0, chunks * chunk + ahead - x.size(1)))
        windows = padded.unfold(1, chunk + ahead, chunk).transpose(2, 3)
        first = torch.arange(chunks, device=lengths.device) * chunk
        inside = (lengths[:, None] - first).clamp(min=0, max=chunk + ahead)
        return self.run_windows(windows, inside, x.size(1), [None] * len(self.layers), after_layer)[0], lengths

    def front(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the first layer (batch, frames', width), and its lengths."""
        return super().front(self.feature_norm(features, valid_frames(lengths, features.size(1))), lengths)

    def run_windows(
        self, windows: Tensor, lengths: Tensor, frames: int, states: list[Any], after_layer: AfterLayer | None
    ) -> tuple[Tensor, list[Any]]:
        """Run all layers over windows (batch, chunks, n, width) with lengths (batch, chunks), from the layers' states.

        Returns the first `frames` outputs of the chunks, joined (batch, frames, width), and the new states.
        """
        after = []
        for number, (layer, state) in enumerate(zip(self.layers, states, strict=True), 1):
            assert isinstance(layer, LatencyControlledLayer)
            windows, state = layer.windows(windows, lengths, self.config.chunk, frames, state)
            after.append(state)
            if after_layer is not None:
                windows = self._hooked(after_layer, number, windows, lengths, frames)
        return windows[:, :, : self.config.chunk].flatten(1, 2)[:, :frames], after

    def _hooked(self, after_layer: AfterLayer, number: int, windows: Tensor, lengths: Tensor, frames: int) -> Tensor:
        """The windows as `after_layer` returns them.

        It gets the joined chunks as the rows of the batch, followed by the look-ahead frames in as many rows as they
        fill.
        """
        chunks, ahead = windows[:, :, : self.config.chunk], windows[:, :, self.config.chunk :]
        joined, width = chunks.flatten(1, 2), windows.size(-1)
        count = ahead.numel() // width
        filled = functional.pad(ahead.reshape(count, width), (0, 0, 0, -count % frames))
        rows = filled.reshape(len(filled) // frames, frames, width)
        inside = lengths.clamp(max=self.config.chunk).sum(1)
        inside = functional.pad(inside, (0, len(rows)), value=frames)
        x = after_layer(number, torch.cat([joined[:, :frames], rows]), inside)
        ahead = x[len(joined) :].flatten(0, 1)[:count].reshape(ahead.shape)
        joined = functional.pad(x[: len(joined)], (0, 0, 0, joined.size(1) - frames))
        return torch.cat([joined.unflatten(1, chunks.shape[1:3]), ahead], dim=2)

    def stream(self, after_layer: AfterLayer | None = None) -> EncoderStream:
        """The states of one utterance while its features arrive."""
        return _Stream(self, after_layer)


class _Stream:
    """Runs chunk by chunk and keeps the states of the forward cells; see `EncoderStream`."""

    def __init__(self, encoder: LatencyControlledEncoder, after_layer: AfterLayer | None) -> None:
        self.encoder, self.after_layer = encoder, after_layer
        self.front = front_stream(encoder)
        self.states: list[Any] = [None] * len(encoder.layers)
        self.held = self.front.held.new_zeros(0, self.front.width)  # from the start of the next chunk

    def feed(self, features: Tensor) -> Tensor:
        return self._advance(self.front.feed(features), self.encoder.config.chunk_lookahead)

    def finish(self) -> Tensor:
        return self._advance(self.front.finish(), None)

    def _advance(self, frames: Tensor, ahead: int | None) -> Tensor:
        """The states of the chunks that are followed by `ahead` frames; None at the end of the utterance: all."""
        config = self.encoder.config
        held = torch.cat([self.held, frames])
        outputs = [held.new_zeros(0, self.encoder.output_size)]
        while len(held) >= (1 if ahead is None else config.chunk + ahead):
            window = held[: config.chunk + config.chunk_lookahead]
            length = torch.tensor([[len(window)]], device=held.device)
            count, hook = min(len(window), config.chunk), self.after_layer
            states, self.states = self.encoder.run_windows(window[None, None], length, count, self.states, hook)
            outputs.append(states[0])
            held = held[config.chunk :]
        self.held = held
        return torch.cat(outputs)
