"""What batches of padded utterances have in common: masks, reversal within lengths, statistics of valid frames alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Boolean mask (batch, frames): True where a frame lies within its utterance's length."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, frames, ...) with zeros beyond each length; what lies there may be NaN."""
    mask = valid_frames(lengths, x.size(1))
    return x.masked_fill(~mask.reshape(*mask.shape, *[1] * (x.dim() - 2)), 0.0)


def reversal_index(lengths: Tensor, frames: int) -> Tensor:
    """Index (batch, frames) that reverses each sequence within its own length and leaves the padding in place.

    It is its own inverse: gathering twice restores the original.
    """
    steps = torch.arange(frames, device=lengths.device)[None, :]
    last = lengths[:, None] - 1
    return torch.where(steps <= last, last - steps, steps)


def reverse_within_length(sequence: Tensor, index: Tensor) -> Tensor:
    """(batch, frames, channels) -> the same, each utterance reversed within its own length."""
    return sequence.gather(1, index[:, :, None].expand(-1, -1, sequence.size(2)))


class MaskedBatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy, 2015) of (batch, frames, ..., channels) over the valid frames alone.

    In training the statistics are those of a batch's valid frames on one device, in evaluation running averages of them
    (with unbiased variance, as PyTorch's). A batch without a valid frame changes nothing.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same shape; beyond the lengths it means nothing."""
        with torch.autocast(x.device.type, enabled=False):
            values = x if x.dtype == torch.float64 else x.float()
            mean, variance = (
                self._statistics(values, lengths) if self.training else (self.running_mean, self.running_var)
            )
            values = (values - mean) * torch.rsqrt(variance + self.epsilon)
            if self.weight is not None:
                values = values * self.weight + self.bias
        return values.to(x.dtype)

    def _statistics(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        dimensions = tuple(range(x.dim() - 1))
        count = lengths.sum() * (x[0, 0].numel() // x.size(-1))
        mean = zero_padding(x, lengths).sum(dimensions) / count.clamp(min=1)
        squares = zero_padding((x - mean).square(), lengths).sum(dimensions)
        with torch.no_grad():
            share = self.momentum * (count > 0)
            self.running_mean += share * (mean - self.running_mean)
            self.running_var += share * (squares / (count - 1).clamp(min=1) - self.running_var)
        return mean, squares / count.clamp(min=1)
