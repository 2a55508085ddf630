"""What our models are compared with: the same network on packed cells, and Deep Speech 2 as other toolkits build it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.audio.features import FeatureConfig, LogMel
from asr.model.config import RecurrentConfig
from asr.model.recurrent import RecurrentEncoder, RecurrentLayer


class PackedEncoder(nn.Module):
    """The recurrent encoder as other toolkits build it: bidirectional cells over packed sequences, norm in between."""

    def __init__(self, ours: RecurrentEncoder, config: RecurrentConfig) -> None:
        super().__init__()
        self.subsampling, self.input_norm = ours.subsampling, ours.input_norm
        self.ours = [layer for layer in ours.layers if isinstance(layer, RecurrentLayer)]
        self.norms = nn.ModuleList(layer.norm for layer in self.ours if layer.norm is not None)
        self.stride = ours.stride
        self.cells = nn.ModuleList()
        for layer in self.ours:
            assert isinstance(layer.forward_cell, nn.RNNBase)
            kind: Any = type(layer.forward_cell)
            cell = kind(layer.forward_cell.input_size, config.hidden_size, batch_first=True, bidirectional=True)
            for suffix, source in (("", layer.forward_cell), ("_reverse", layer.backward_cell)):
                assert source is not None
                for name, parameter in source.named_parameters():
                    getattr(cell, name + suffix).data.copy_(parameter.data)
            self.cells.append(cell)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.subsampling(features, lengths)
        x = self.input_norm(x) if self.input_norm is not None else x
        for layer, cell in zip(self.ours, self.cells, strict=True):
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(cell(packed)[0], batch_first=True)
            x = layer.norm(x) if layer.norm is not None else x
        return x, lengths


class DeepSpeech2(nn.Module):
    """Deep Speech 2 (Amodei et al., 2016): two 2D convolutions of 32 channels, clipped ReLU and batch norm, then
    bidirectional LSTM layers over packed sequences with batch norm over time between, the directions summed.
    """

    def __init__(self, features: FeatureConfig, width: int, layers: int, vocab_size: int) -> None:
        super().__init__()
        self.features = LogMel(features)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, (11, 41), stride=(2, 2), padding=(5, 20)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(32, 32, (11, 21), stride=(2, 2), padding=(5, 10)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
        )
        sizes = [32 * ((features.n_mels + 3) // 4)] + [width] * (layers - 1)
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes)
        self.cells = nn.ModuleList(nn.LSTM(size, width, bidirectional=True, batch_first=True) for size in sizes)
        self.output = nn.Linear(width, vocab_size)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x, lengths = self.features(waveforms, lengths)
        x = self.convolutions(x[:, None])
        lengths = (lengths + 3) // 4
        x = x.transpose(1, 2).flatten(2)
        for norm, cell in zip(self.norms, self.cells, strict=True):
            x = norm(x.transpose(1, 2)).transpose(1, 2)
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(cell(packed)[0], batch_first=True)
            x = x.unflatten(2, (2, -1)).sum(2)
        return torch.log_softmax(self.output(x).float(), dim=-1), lengths
