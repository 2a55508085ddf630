"""Padded batches: masks of valid frames, zeros in the padding, reversal within lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Boolean mask (batch, frames): True where a frame lies within its utterance's length."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, frames, ...) with zeros beyond each length, even where `x` is NaN."""
    mask = valid_frames(lengths, x.size(1))
    return x.masked_fill(~mask.reshape(*mask.shape, *[1] * (x.dim() - 2)), 0.0)


def reversal_index(lengths: Tensor, frames: int) -> Tensor:
    """Index (batch, frames) that reverses each sequence within its length and leaves the padding in place.

    It is its own inverse.
    """
    steps = torch.arange(frames, device=lengths.device)[None, :]
    last = lengths[:, None] - 1
    return torch.where(steps <= last, last - steps, steps)


def reverse_within_length(sequence: Tensor, index: Tensor) -> Tensor:
    """(batch, frames, channels) -> the same, with each utterance reversed by its `reversal_index`."""
    return sequence.gather(1, index[:, :, None].expand(-1, -1, sequence.size(2)))
