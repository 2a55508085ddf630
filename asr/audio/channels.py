"""The channels asked for out of a recording, and what is noticed of them on the way."""

from __future__ import annotations

import numpy as np

from asr.types import AudioError


class ChannelPicker:
    """Takes the channels asked for out of `(frames, channels)` blocks."""

    def __init__(self, channel: str | int, channels: int, label: str) -> None:
        self.channel = int(channel) if str(channel).removeprefix("-").isdecimal() else channel
        self.label = label
        self.energy = np.zeros(2)  # of the channels on average, of their mean
        chosen = channels if self.channel == "each" else 1
        self.lowest, self.highest = np.full(chosen, np.inf), np.full(chosen, -np.inf)  # of what was picked so far
        if isinstance(self.channel, int):
            if not 0 <= self.channel < channels:
                there = "1 channel (0)" if channels == 1 else f"{channels} channels (0 to {channels - 1})"
                raise AudioError(f"{label}: no channel {channel}, it has {there}")
        elif channel not in ("mix", "each"):
            raise AudioError(f"{label}: channel must be 'mix', 'each' or a number, found {channel!r}")

    @property
    def constant(self) -> tuple[bool, ...]:
        """Of each channel picked, whether all of its samples so far are the same."""
        return tuple((self.lowest == self.highest).tolist())

    def __call__(self, block: np.ndarray) -> np.ndarray:
        picked = self._pick(block)
        if len(block):
            self.lowest = np.minimum(self.lowest, picked.min(axis=-1))
            self.highest = np.maximum(self.highest, picked.max(axis=-1))
        return picked

    def _pick(self, block: np.ndarray) -> np.ndarray:
        if self.channel == "each":
            return block.T
        if isinstance(self.channel, int):
            return block[:, self.channel]
        if block.shape[1] == 1:
            return block[:, 0]
        with np.errstate(all="ignore"):  # not finite: refused later, by name
            mixed = block.mean(axis=1, dtype=np.float32)
            self.energy += [np.square(block).mean(axis=1).sum(), np.square(mixed).sum()]
        return mixed

    def warnings(self) -> list[str]:
        apart, mixed = self.energy
        if mixed < 1e-3 * apart:
            return ["the channels cancel each other when mixed (one is inverted): choose one by its number"]
        return []
