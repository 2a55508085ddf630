"""What happens inside a model as it hears a recording: what it recognizes, when, by which features and cell states."""

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
from asr.model.decoder import EDGE
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

MOST_SECONDS = 60.0  # more would not be legible on a page


@dataclass(frozen=True)
class LayerView:
    """The inside of an encoder layer.

    `states` (frames, width) are by direction, forward or backward, in the order of the recording; a layer without cells
    has only the states `output`. `gates` (frames, hidden) are by direction and name.
    """

    number: int
    frame_seconds: float
    states: dict[str, np.ndarray]
    gates: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights (rows, frames); each row sums to 1.

    With `tokens`, a row is the decoder's step for a token; without, it is a frame of the encoder layer with the number
    `layer`, averaged over the heads.
    """

    weights: np.ndarray
    frame_seconds: float
    tokens: tuple[str, ...] = ()
    layer: int = 0


@dataclass(frozen=True)
class Explanation:
    """Everything that a page about one recording shows. Times are in seconds from the start of what was read.

    samples: (time,) at `rate`; features: (frames, mels), whose bands are centered on `band_hz`, in hertz; log_probs:
    (time, vocab). `saliency` is that of the word with the index `chosen`. `notes` tell what is left out, and why.
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
    """Look inside the model as it hears a recording of at most MOST_SECONDS.

    Aligns `text` or, by default, what the model recognizes by greedy decoding. `word` is the word to explain, given by
    its number, from 1, or by itself, for its first occurrence; the default is the longest in time. `layer` is the
    number of an encoder layer, from 1; the default is the last one with cells. Raises UsageError for words and layers
    that do not exist and for models without CTC, AudioError for silence, and what `align_recording` raises.
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
        with _tracing(model.encoder) as traces:
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
            notes.append(f"'{words[chosen].word}' is no likelier than in average sound: the model does not hear it")
    elif word is not None:
        raise UsageError(f"--word {word}: no word was recognized in {recording.name}; give its text (--text)")
    else:
        notes.append("No word was recognized, so there is no alignment and no saliency: give a text (--text).")
    feature_seconds = model.features.hop_seconds
    view = _layer_view(traces, number, len(features[0]), feature_seconds, notes)
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
        attention=(*_decoder_map(recognizer, outputs.states, tokens), *_self_attention_map(traces, number, view)),
        chosen=chosen,
        saliency=saliency,
        notes=tuple(notes),
        warnings=audio.warnings,
    )


def band_centers(config: FeatureConfig) -> np.ndarray:
    """The centers (mels,) of the filter bank's mel bands in hertz, on the HTK scale."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (config.low_hz, config.top_hz))
    mels = np.linspace(low, high, config.n_mels + 2)[1:-1]
    return 700 * (10 ** (mels / 2595) - 1)


def _audio(recognizer: Recognizer, recording: Recording, channel: str | int, raw: RawFormat | None) -> Audio:
    """The samples of one channel. Raises AudioError if it is silent or too long."""
    recording = rereadable(recording)
    with open_recording(recording, recognizer.rate, recording.channel_or(channel), raw) as stream:
        audio = None if MOST_SECONDS < stream.seconds < math.inf else stream.read()
        seconds = stream.seconds if audio is None else audio.duration
    if audio is None or seconds > MOST_SECONDS:
        raise AudioError(
            f"{recording.name}: {seconds:.1f} s is too long to look at: "
            f"choose at most {MOST_SECONDS:.0f} s with --start and --duration"
        )
    if audio.silent[0]:
        raise AudioError(f"{recording.name}: {SILENCE}")
    return audio


def _layers(encoder: Any) -> list[nn.Module]:
    """The layers of an encoder, if it has any: recurrent ones without what surrounds their cells."""
    return [getattr(layer, "recurrent", layer) for layer in getattr(encoder, "layers", ())]


def _layer_number(layers: Sequence[nn.Module], wanted: int | None) -> int:
    """The number, from 1, of the layer to show; 0 if the encoder has none. Raises UsageError."""
    if wanted is not None and not 1 <= wanted <= len(layers):
        has = f"has layers 1 to {len(layers)}" if layers else "has no layers to look into"
        raise UsageError(f"--layer {wanted}: the encoder of this model {has}")
    with_cells = [number for number, layer in enumerate(layers, 1) if isinstance(layer, RecurrentLayer)]
    return wanted or max(with_cells, default=len(layers))


def _chosen(words: Sequence[Word], wanted: str | None, rules: str) -> int:
    """The index of the word to explain, which is given by number or by itself."""
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
class _Trace:
    """What passed through a layer: its inputs, its cells' states and its output, (1, frames, width) each, and the
    pieces that the forward cell was given.
    """

    module: nn.Module
    inputs: Tensor | None = None
    hidden: Tensor | None = None
    output: Tensor | None = None
    pieces: tuple[Tensor, ...] = ()


@contextmanager
def _tracing(encoder: Any) -> Iterator[list[_Trace]]:
    """Record what passes through each layer of an encoder."""
    traces = [_Trace(layer) for layer in _layers(encoder)]
    handles = []
    for trace in traces:
        handles += [
            trace.module.register_forward_pre_hook(lambda _, given, t=trace: setattr(t, "inputs", given[0][:1])),
            trace.module.register_forward_hook(lambda *io, t=trace: setattr(t, "output", io[2][:1])),
        ]
        if isinstance(trace.module, RecurrentLayer):
            handles += [
                trace.module.hidden.register_forward_hook(lambda *io, t=trace: setattr(t, "hidden", io[2][:1])),
                trace.module.forward_cell.register_forward_pre_hook(
                    lambda _, given, t=trace: setattr(t, "pieces", (*t.pieces, given[0][:1]))
                ),
            ]
    try:
        yield traces
    finally:
        for handle in handles:
            handle.remove()


def _layer_view(
    traces: Sequence[_Trace], number: int, feature_frames: int, feature_seconds: float, notes: list[str]
) -> LayerView | None:
    """What a layer did; adds to `notes` what cannot be shown."""
    if not number:
        notes.append("The encoder of this model has no layers to look into.")
        return None
    trace = traces[number - 1]
    gates: dict[str, dict[str, np.ndarray]] = {}
    if isinstance(layer := trace.module, RecurrentLayer):
        assert trace.hidden is not None
        hidden = trace.hidden[0]
        directions = ("forward", "backward") if layer.backward_cell is not None else ("forward",)
        states = dict(zip(directions, hidden.chunk(len(directions), dim=1), strict=True))
        gates = _gates(trace, layer, len(hidden), notes)
        if not any(gates.values()):
            gates = {}
            notes.append(f"The cells of layer {number} are plain recurrent ones, which have no gates.")
    else:
        assert trace.output is not None
        states = {"output": trace.output[0]}
        notes.append(f"Layer {number} has no recurrent cells, and therefore no gates.")
    frames = len(next(iter(states.values())))
    # A layer sees every 1st, 2nd, 4th ... feature frame; its last frame may be made of fewer.
    stride = 2 ** round(math.log2(feature_frames / frames))
    arrays = {direction: values.cpu().numpy() for direction, values in states.items()}
    return LayerView(number, stride * feature_seconds, arrays, gates)


def _gates(trace: _Trace, layer: RecurrentLayer, frames: int, notes: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """The gates of both cells, computed again from the layer's inputs."""
    if trace.inputs is not None:
        inputs = {"forward": trace.inputs[0]}
        if layer.backward_cell is not None:
            inputs["backward"] = trace.inputs[0].flip(0)
    else:  # latency-controlled: the forward cell runs chunk by chunk, and finally over the context after each chunk
        inputs = {"forward": torch.cat(trace.pieces, dim=1)[0, :frames]}
        notes.append("The gates of the backward cell are left out: it starts over in every chunk of the recording.")
    gates: dict[str, dict[str, np.ndarray]] = {}
    for direction, x in inputs.items():
        cell = layer.forward_cell if direction == "forward" else layer.backward_cell
        assert cell is not None
        gates[direction] = {
            name: (values.flip(0) if direction == "backward" else values).cpu().numpy()
            for name, values in trace_cell(cell, x, layer.zoneout).gates.items()
        }
    return gates


@torch.no_grad()
def _decoder_map(recognizer: Recognizer, states: Tensor, tokens: Sequence[int]) -> list[AttentionMap]:
    """Where the attention decoder, if there is one, looks as it spells these tokens and the end."""
    decoder = recognizer.acoustic_model.decoder
    if decoder is None or not tokens:
        return []
    memory, state = decoder.start(states, torch.tensor([states.size(1)], device=states.device))
    weights = []
    for token in (EDGE, *tokens):
        _, state = decoder.step(torch.tensor([token], device=states.device), state, memory)
        weights.append(state.weights[0])
    names = tuple(recognizer.tokenizer.labels[token] for token in tokens)
    return [AttentionMap(torch.stack(weights).cpu().numpy(), recognizer.frame_seconds, (*names, "end"))]


def _self_attention_map(traces: Sequence[_Trace], number: int, view: LayerView | None) -> list[AttentionMap]:
    """The self-attention of the chosen layer or, if that has cells, of the last attention layer."""
    attention_layers = [n for n, trace in enumerate(traces, 1) if isinstance(trace.module, AttentionLayer)]
    if not attention_layers or view is None:
        return []
    chosen = number if number in attention_layers else attention_layers[-1]
    trace = traces[chosen - 1]
    assert isinstance(trace.module, AttentionLayer) and trace.inputs is not None
    with torch.no_grad():
        weights = trace.module.weights(trace.inputs).mean(dim=0).cpu().numpy()
    return [AttentionMap(weights, view.frame_seconds, layer=chosen)]
