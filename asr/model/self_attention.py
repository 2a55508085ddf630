"""The encoder `recurrent-attention`: self-attention over the states of a recurrent stack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.config import RecurrentConfig
from asr.model.padding import valid_frames
from asr.model.recurrent import RecurrentEncoder


@dataclass(frozen=True)
class RecurrentAttentionConfig(RecurrentConfig):
    """The options of `recurrent`, and of the self-attention layers above: their number, heads and feed-forward width.

    They are as wide as the recurrent layers. Memory may grow with the square of an utterance's frames; long recordings
    are decoded in windows.
    """

    encoder: str = "recurrent-attention"
    attention_layers: int = 1
    attention_heads: int = 4
    feed_forward: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attention_layers", "attention_heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        width = self.projection or self.hidden_size * (2 if self.bidirectional else 1)
        if width % (2 * self.attention_heads):
            raise ValueError(
                f"twice attention_heads must divide the width of the recurrent layers, {width}, "
                f"found {self.attention_heads} attention_heads"
            )


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021, "RoFormer", arXiv 2104.09864) of queries or keys (..., frames, size).

    Each pair of values is rotated by the frame number times the pair's frequency, so that the product of a query and a
    key depends only on the distance between their frames.
    """
    half = x.size(-1) // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.size(-2), device=x.device, dtype=torch.float32)[:, None] * frequencies
    sine, cosine = angles.sin(), angles.cos()
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1).to(x.dtype)


class AttentionLayer(nn.Module):
    """Self-attention over all valid frames, then a feed-forward layer, each with layer norm before it and a residual
    connection (Vaswani et al., 2017; Xiong et al., 2020), and a layer norm at the end.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.output_size = heads, width
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, feed_forward),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, width),
        )
        self.dropout = nn.Dropout(dropout)
        self.last_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width), lengths (batch,) -> the same shape."""
        batch, frames, width = x.shape
        valid = valid_frames(lengths.clamp(min=1), frames)  # in a row of length 0, softmax over no frames would be NaN
        queries, keys, values = self._split(x)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=valid[:, None, None, :],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        x = x + self.dropout(self.mixed(mixed.transpose(1, 2).reshape(batch, frames, width)))
        x = x + self.dropout(self.feed_forward(x))
        return self.last_norm(x)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values (batch, heads, frames, size)."""
        split = self.queries_keys_values(self.norm(x)).reshape(*x.shape[:2], 3 * self.heads, -1)
        queries, keys, values = split.transpose(1, 2).chunk(3, dim=1)
        return rotate(queries), rotate(keys), values

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights of one utterance (1, frames, width): (heads, frames, frames), rows sum to 1."""
        queries, keys, _ = self._split(x)
        products = queries @ keys.transpose(-1, -2) / queries.size(-1) ** 0.5
        return torch.softmax(products.float(), dim=-1)[0]


class RecurrentAttentionEncoder(RecurrentEncoder):
    """A front end, recurrent layers, and self-attention layers above them."""

    def __init__(self, config: RecurrentAttentionConfig, n_mels: int) -> None:
        super().__init__(config, n_mels)
        for _ in range(config.attention_layers):
            self.layers.append(
                AttentionLayer(self.output_size, config.attention_heads, config.feed_forward, config.dropout)
            )
        self.layer_sizes += (self.output_size,) * config.attention_layers
        self.backward_size = 0  # attention mixes both directions
