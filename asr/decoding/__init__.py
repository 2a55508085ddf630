"""From emissions to words. Names that need compiled code are imported on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.decoding.beam.search import BeamSearch, Pruning
    from asr.decoding.greedy import GreedyDecoder
    from asr.lm.ngram import NGramLM

__all__ = ["BeamSearch", "GreedyDecoder", "NGramLM", "Pruning"]

_HOMES = {
    "BeamSearch": "asr.decoding.beam.search",
    "GreedyDecoder": "asr.decoding.greedy",
    "NGramLM": "asr.lm.ngram",
    "Pruning": "asr.decoding.beam.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
