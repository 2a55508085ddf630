"""Before the first step: the tokenizer, and every utterance that cannot be trained on, named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from asr.corpus.check import Skip, infeasible, unknown_symbols, write_skipped
from asr.corpus.manifest import Manifest, Utterance
from asr.model.acoustic import output_length
from asr.text.normalize import normalize, tag_warnings
from asr.text.tokenizer import Tokenizer, train_char, train_sentencepiece
from asr.training.config import TextConfig, TrainConfig
from asr.types import ManifestError, TextError

MAX_SKIPPED = 0.01  # above this share something is wrong with the data, not with a few utterances


def make_tokenizer(config: TextConfig, utterances: Iterable[Utterance]) -> Tokenizer:
    """Train the tokenizer on the training transcripts alone."""

    def texts() -> Iterator[str]:
        return (normalize(utterance.text, config.normalizer) for utterance in utterances)

    if config.tokenizer == "char":
        return train_char(texts())
    return train_sentencepiece(texts(), config.vocab_size, config.tokenizer)


def training_manifest(
    manifest: Manifest, tokenizer: Tokenizer, config: TrainConfig, output: Path, say: Callable[[str], None]
) -> Manifest:
    """The utterances that can be trained on; the others are written to `output/skipped.tsv` and counted.

    Annotators' tags in transcripts are reported; the normalizer says whether they are learned as words.

    Refused are: duration outside [min_duration, max_duration], an empty text, CTC-infeasible (fewer output frames
    than tokens plus adjacent repeats). Raises TextError for symbols the tokenizer does not know, ManifestError when
    more than 1 % had to go and `data.allow_skips` is not set.
    """
    texts = ((utterance.id, utterance.text) for utterance in manifest)
    for warning in tag_warnings(texts, "the training transcripts", config.text.normalizer):
        say(f"warning: {warning}")
    unknown = unknown_symbols(manifest, tokenizer, config.text.normalizer)
    if unknown:
        table = ", ".join(f"{s.symbol!r} x {s.count} (e.g. {s.examples[0]})" for s in unknown[:8])
        raise TextError(
            f"{manifest.path}: symbols that the tokenizer does not know: {table}; correct the transcripts, "
            f"choose another text.normalizer, or train a new tokenizer"
        )
    skips = list(_outside(manifest, config.data.min_duration, config.data.max_duration))
    emitted = partial(output_length, features=config.features, model=config.model)
    fastest = max((1.0, *config.augment.speed))
    skips += infeasible(manifest, tokenizer, config.text.normalizer, config.features.rate, emitted, speed=fastest)
    skips = list({skip.id: skip for skip in reversed(skips)}.values())[::-1]
    if not skips:
        return manifest
    write_skipped(output / "skipped.tsv", skips)
    share = len(skips) / len(manifest)
    where = output / "skipped.tsv"
    message = f"{len(skips)} of {len(manifest)} training utterances ({share:.1%}) cannot be used, see {where}"
    if len(skips) == len(manifest) or (share > MAX_SKIPPED and not config.data.allow_skips):
        raise ManifestError(
            f"{message}; first: {skips[0].id}: {skips[0].reason} (data.allow_skips=true goes on without)"
        )
    say(f"warning: {message}")
    ids = {skip.id for skip in skips}
    keep = [index for index, utterance in enumerate(manifest) if utterance.id not in ids]
    return manifest.select(np.asarray(keep, dtype=np.int64))


def _outside(manifest: Manifest, shortest: float, longest: float) -> Iterator[Skip]:
    durations = manifest.durations
    for index in np.flatnonzero((durations < shortest) | (durations > longest)):
        yield Skip(manifest[int(index)].id, f"lasts {durations[index]:.2f} s, outside {shortest:g} to {longest:g} s")
