"""Looking inside a model at one recording: what it heard, when, by which features, and what its cells did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asr.audio.features import FeatureConfig
from asr.audio.read import Audio, RawFormat
from asr.config import nearest
from asr.model.decoder import EDGE, AttentionDecoder
from asr.model.gates import trace_cell
from asr.model.recurrent import RecurrentLayer
from asr.model.self_attention import AttentionLayer
from asr.recognition.acoustics import SILENCE
from asr.recognition.alignment import align_tokens, naming
from asr.recognition.inputs import Recording
from asr.recognition.loading import open_recording, rereadable
from asr.recognition.recognizer import Recognizer
from asr.recognition.saliency import Saliency, explain_score, word_score
from asr.text.normalize import normalizer
from asr.types import AsrError, AudioError, UsageError, Word

MOST_SECONDS = 60.0  # that a page shows legibly


@dataclass(frozen=True)
class LayerView:
    """The inside of an encoder's layer. `states` (frames, width) and `gates` (frames, hidden) are by direction, forward
    and backward (in the order of the recording), the gates by name, too; a layer without cells has the states `output`.
    """

    number: int
    frame_seconds: float
    states: dict[str, np.ndarray]
    gates: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class AttentionMap:
    """Weights (rows, frames), rows of sum 1. A row is a step of a decoder, named by its token, or, without `tokens`, a
    frame of the layer of the encoder with this number, averaged over the heads.
    """

    weights: np.ndarray
    frame_seconds: float
    tokens: tuple[str, ...] = ()
    layer: int = 0


@dataclass(frozen=True)
class Explanation:
    """Everything that a page about one recording shows. Times are in seconds from the beginning of what was read.

    samples: (time,) at `rate`; features: (frames, mels), with the centers of the bands in hertz; log_probs: (time,
    vocab); `chosen` is the place, among the words, of the one whose saliency it is; `notes` say what is left out, and
    why.
    """

    name: str
    samples: np.ndarray
    rate: int
    duration: float
    features: np.ndarray
    feature_seconds: float
    band_hz: np.ndarray
    log_probs: np.ndarray
    labels: Sequence[str]
    frame_seconds: float
    text: str
    given: bool  # whether the text was given, not recognized
    words: tuple[Word, ...]
    tokens: tuple[Word, ...]
    layer: LayerView | None
    attention: tuple[AttentionMap, ...]
    chosen: int | None
    saliency: Saliency | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def explain(
    recognizer: Recognizer,
    recording: Recording,
    *,
    text: str | None = None,
    word: str | None = None,
    layer: int | None = None,
    channel: str | int = "mix",
    raw: RawFormat | None = None,
) -> Explanation:
    """Look inside the model while it hears a recording of at most MOST_SECONDS.

    `text` is aligned; without it, what the model recognizes greedily. `word` is the one to explain: its number, from 1,
    or the word, of which the first is taken; by default the one that lasts longest. `layer` numbers the encoder's
    layers from 1; by default it is the last one with cells. Raises UsageError for words and layers that do not exist
    and for models without CTC, AudioError for recordings of silence, and what `align_recording` raises.
    """
    recognizer.model_file.need_ctc("an explanation")
    model, tokenizer, notes = recognizer.acoustic_model, recognizer.tokenizer, list[str]()
    number = _layer_number(_layers(model.encoder), layer)
    with naming(recording):
        tokens = None if text is None else tokenizer.encode(normalizer(recognizer.normalizer)(text))
        if tokens == []:
            raise AsrError("the text is empty: there is nothing to explain")
    audio = _audio(recognizer, recording, channel, raw)
    wave = torch.from_numpy(audio.samples).to(recognizer.device)[None]
    with torch.no_grad():
        features, frames = model.features(wave, torch.tensor([wave.size(1)], device=wave.device))
        with _watching(model.encoder) as seen:
            outputs = model.recognize(features, frames)
    log_probs = outputs.log_probs[0].cpu().numpy()
    if tokens is None:
        tokens = [int(label) for label, _ in groupby(log_probs.argmax(axis=1)) if label]
    words: list[Word] = []
    times: list[Word] = []
    chosen: int | None = None
    saliency: Saliency | None = None
    if spans := tokenizer.words(tokens):
        with naming(recording):
            words, times, alignment = align_tokens(recognizer, log_probs, tokens, audio.duration)
        chosen = _chosen(words, word, recognizer.normalizer)
        _, first, last = spans[chosen]
        begin, end = int(alignment.starts[first]), int(alignment.ends[last - 1])
        saliency = explain_score(word_score(model, tokens[first:last], begin, end), features[0])
        if saliency.score <= saliency.baseline_score:
            notes.append(f"'{words[chosen].word}' is no likelier than in the average sound: the model does not hear it")
    elif word is not None:
        raise UsageError(f"--word {word}: no word was recognized in {recording.name}; give its text (--text)")
    else:
        notes.append("No word was recognized, so there is no alignment and no saliency: give a text (--text).")
    feature_seconds = model.features.hop_seconds
    view = _layer_view(seen, number, len(features[0]), feature_seconds, notes)
    return Explanation(
        name=recording.name,
        samples=audio.samples,
        rate=audio.rate,
        duration=audio.duration,
        features=features[0].cpu().numpy(),
        feature_seconds=feature_seconds,
        band_hz=band_centers(model.feature_config),
        log_probs=log_probs,
        labels=tokenizer.labels,
        frame_seconds=recognizer.frame_seconds,
        text=" ".join(word for word, _, _ in spans),
        given=text is not None,
        words=tuple(words),
        tokens=tuple(times),
        layer=view,
        attention=(*_decoder_map(recognizer, outputs.states, tokens), *_self_attention_map(seen, number, view)),
        chosen=chosen,
        saliency=saliency,
        notes=tuple(notes),
        warnings=audio.warnings,
    )


def band_centers(config: FeatureConfig) -> np.ndarray:
    """The centers (mels,) of the mel bands in hertz, on the HTK scale, as the filter bank has them."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (config.low_hz, config.top_hz))
    mels = np.linspace(low, high, config.n_mels + 2)[1:-1]
    return 700 * (10 ** (mels / 2595) - 1)


def _audio(recognizer: Recognizer, recording: Recording, channel: str | int, raw: RawFormat | None) -> Audio:
    """The samples of one channel; raises AudioError for silence and for what is too long."""
    recording = rereadable(recording)
    with open_recording(recording, recognizer.rate, recording.channel_or(channel), raw) as stream:
        audio = None if MOST_SECONDS < stream.seconds < math.inf else stream.read()
        seconds = stream.seconds if audio is None else audio.duration
    if audio is None or seconds > MOST_SECONDS:
        raise AudioError(
            f"{recording.name}: {seconds:.1f} s are too long to look at: "
            f"choose at most {MOST_SECONDS:.0f} s with --start and --duration"
        )
    if audio.silent[0]:
        raise AudioError(f"{recording.name}: {SILENCE}")
    return audio


def _layers(encoder: Any) -> list[nn.Module]:
    """An encoder's layers, without what is around their cells; none of an encoder that has none."""
    return [getattr(layer, "recurrent", layer) for layer in getattr(encoder, "layers", ())]


def _layer_number(layers: Sequence[nn.Module], wanted: int | None) -> int:
    """The number, from 1, of the layer to show; 0 where there is none. Raises UsageError."""
    if wanted is not None and not 1 <= wanted <= len(layers):
        has = f"has layers 1 to {len(layers)}" if layers else "has no layers to look into"
        raise UsageError(f"--layer {wanted}: the encoder of this model {has}")
    with_cells = [number for number, layer in enumerate(layers, 1) if isinstance(layer, RecurrentLayer)]
    return wanted or max(with_cells, default=len(layers))


def _chosen(words: Sequence[Word], wanted: str | None, rules: str) -> int:
    """The place of the word to explain, which the user names by number or by the word itself."""
    if wanted is None:
        return max(range(len(words)), key=lambda i: words[i].end - words[i].start)
    if wanted.isdecimal():
        if not 1 <= int(wanted) <= len(words):
            raise UsageError(f"--word {wanted}: the text has words 1 to {len(words)}")
        return int(wanted) - 1
    spelled = [word.word for word in words]
    if (normalized := normalizer(rules)(wanted)) not in spelled:
        raise UsageError(f"--word {wanted}: not in the text '{' '.join(spelled)}'{nearest(normalized, spelled)}")
    return spelled.index(normalized)


@dataclass
class _Seen:
    """What passed through a layer: its input, its cells' states, its output, (1, frames, width) each, and the pieces
    that the forward cell was given.
    """

    module: nn.Module
    inputs: Tensor | None = None
    hidden: Tensor | None = None
    output: Tensor | None = None
    pieces: tuple[Tensor, ...] = ()


@contextmanager
def _watching(encoder: Any) -> Iterator[list[_Seen]]:
    """Keep what passes through each layer of an encoder."""
    seen = [_Seen(layer) for layer in _layers(encoder)]
    handles = []
    for one in seen:
        handles += [
            one.module.register_forward_pre_hook(lambda _, given, one=one: setattr(one, "inputs", given[0][:1])),
            one.module.register_forward_hook(lambda *io, one=one: setattr(one, "output", io[2][:1])),
        ]
        if isinstance(one.module, RecurrentLayer):
            handles += [
                one.module.hidden.register_forward_hook(lambda *io, one=one: setattr(one, "hidden", io[2][:1])),
                one.module.forward_cell.register_forward_pre_hook(
                    lambda _, given, one=one: setattr(one, "pieces", (*one.pieces, given[0][:1]))
                ),
            ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _layer_view(
    seen: Sequence[_Seen], number: int, feature_frames: int, feature_seconds: float, notes: list[str]
) -> LayerView | None:
    """What a layer did; adds to `notes` what cannot be shown."""
    if not number:
        notes.append("The encoder of this model has no layers to look into.")
        return None
    one = seen[number - 1]
    gates: dict[str, dict[str, np.ndarray]] = {}
    if isinstance(layer := one.module, RecurrentLayer):
        assert one.hidden is not None
        hidden = one.hidden[0]
        directions = ("forward", "backward") if layer.backward_cell is not None else ("forward",)
        states = dict(zip(directions, hidden.chunk(len(directions), dim=1), strict=True))
        gates = _gates(one, layer, len(hidden), notes)
        if not any(gates.values()):
            gates = {}
            notes.append(f"The cells of layer {number} are plain recurrent ones, which have no gates.")
    else:
        assert one.output is not None
        states = {"output": one.output[0]}
        notes.append(f"Layer {number} has no recurrent cells, and so no gates.")
    frames = len(next(iter(states.values())))
    # Layers see every 1st, 2nd, 4th ... feature frame; the last one may be made of fewer.
    stride = 2 ** round(math.log2(feature_frames / frames))
    shown = {direction: values.cpu().numpy() for direction, values in states.items()}
    return LayerView(number, stride * feature_seconds, shown, gates)


def _gates(one: _Seen, layer: RecurrentLayer, frames: int, notes: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """The gates of both cells, computed again from what the layer was given."""
    if one.inputs is not None:
        inputs = {"forward": one.inputs[0]}
        if layer.backward_cell is not None:
            inputs["backward"] = one.inputs[0].flip(0)
    else:  # latency-controlled: the forward cell goes from chunk to chunk, and last over what is after each of them
        inputs = {"forward": torch.cat(one.pieces, dim=1)[0, :frames]}
        notes.append("The gates of the backward cell are left out: it begins anew in every chunk of the recording.")
    found: dict[str, dict[str, np.ndarray]] = {}
    for direction, x in inputs.items():
        cell = layer.forward_cell if direction == "forward" else layer.backward_cell
        assert cell is not None
        gates = trace_cell(cell, x, layer.zoneout).gates
        found[direction] = {
            name: (values.flip(0) if direction == "backward" else values).cpu().numpy()
            for name, values in gates.items()
        }
    return found


def _decoder_map(recognizer: Recognizer, states: Tensor, tokens: Sequence[int]) -> list[AttentionMap]:
    """Where the attention decoder, if there is one, looks as it spells these tokens and the end."""
    decoder = recognizer.acoustic_model.decoder
    if decoder is None or not tokens:
        return []
    names = tuple(recognizer.tokenizer.labels[token] for token in tokens)
    return [AttentionMap(_steps(decoder, states, tokens), recognizer.frame_seconds, (*names, "end"))]


@torch.no_grad()
def _steps(decoder: AttentionDecoder, states: Tensor, tokens: Sequence[int]) -> np.ndarray:
    memory, state = decoder.start(states, torch.tensor([states.size(1)], device=states.device))
    weights = []
    for token in (EDGE, *tokens):
        _, state = decoder.step(torch.tensor([token], device=states.device), state, memory)
        weights.append(state.weights[0])
    return torch.stack(weights).cpu().numpy()


def _self_attention_map(seen: Sequence[_Seen], number: int, view: LayerView | None) -> list[AttentionMap]:
    """The self-attention of the chosen layer or, where that has cells, of the last layer that attends."""
    attending = [n for n, one in enumerate(seen, 1) if isinstance(one.module, AttentionLayer)]
    if not attending or view is None:
        return []
    chosen = number if number in attending else attending[-1]
    one = seen[chosen - 1]
    assert isinstance(one.module, AttentionLayer) and one.inputs is not None
    with torch.no_grad():
        weights = one.module.weights(one.inputs).mean(dim=0).cpu().numpy()
    return [AttentionMap(weights, view.frame_seconds, layer=chosen)]
