"""From emissions to words."""

from asr.decoding.greedy import GreedyDecoder

__all__ = ["GreedyDecoder"]
