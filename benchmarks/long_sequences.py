"""Gradient norms against distance, before and after training: vanishing and exploding gradients, and what helps.

    python benchmarks/long_sequences.py --train train.jsonl --dev dev.jsonl -o benchmarks/results/long_sequences

Each system is a stack of unidirectional layers without layer norm, trained on CTC for a few hundred steps: with AdamW,
and with SGD with momentum, whose steps grow with the gradients, each with and without gradient clipping. Gradients are
of the loss of one frame, -log p of a random symbol, with respect to the input of the stack a distance before it,
relative to that at distance 0. They are geometric means over recordings, which are utterances of the dev set joined to
the length needed. Systems that are already in OUTPUT.json are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.config import from_dict
from asr.corpus.batching import BatchSampler
from asr.corpus.manifest import Manifest
from asr.model.acoustic import AcousticModel
from asr.model.config import RecurrentConfig
from asr.scoring.breakdown import text_table
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig, parse_config
from asr.training.data import make_tokenizer
from asr.training.dataset import SpeechDataset, collate
from asr.training.losses.ctc import ctc_loss
from asr.training.record import provenance

SYSTEMS = {"RNN": ("rnn", False), "LSTM": ("lstm", False), "GRU": ("gru", False), "LSTM, residual": ("lstm", True)}
COLORS = {"RNN": "#d1242f", "LSTM": "#1f6feb", "GRU": "#2da44e", "LSTM, residual": "#8250df"}
SCALES = (0.8, 1.5)  # of the recurrent matrices of an untrained RNN
CLIP = 1.0
FRAME = 0.04  # seconds, after subsampling
FLOOR = 1e-12
WIDTH = 128  # of all layers and, with 64 mel bins subsampled to 16 and 8 channels, of the input
OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-2),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
}


def build(system: str, layers: int, config: TrainConfig, vocabulary: int, scale: float = 1.0) -> AcousticModel:
    """A new model, with recurrent matrices multiplied by `scale`. All layers are as wide as their input."""
    cell, residual = SYSTEMS[system]
    options = {"cell": cell, "hidden_size": WIDTH, "layers": layers, "subsampling_channels": 8, "dropout": 0.0}
    options |= {"bidirectional": False, "norm": "none", "residual": residual}
    torch.manual_seed(config.seed)
    model = AcousticModel(from_dict(RecurrentConfig, options), config.features, vocabulary)
    model.encoder.initialize()
    encoder: Any = model.encoder
    for name, parameter in encoder.named_parameters():
        if "weight_hh" in name:
            parameter.data.mul_(scale)
    return model


def run_hooked(model: AcousticModel, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probabilities, their lengths, and the input of the first layer and all outputs, which retain gradients."""
    outputs: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)
        outputs[-1].retain_grad()

    encoder: Any = model.encoder
    parts = [encoder.subsampling, *encoder.layers]
    handles = [part.register_forward_hook(keep) for part in parts]
    log_probs, frames = model(waveforms, lengths)
    for handle in handles:
        handle.remove()
    return log_probs, frames, outputs


def by_distance(model: AcousticModel, waveforms: Tensor, distance: int) -> list[float]:
    """The norms at distances 0 to `distance`, relative to the first."""
    log_probs, frames, outputs = run_hooked(model, waveforms, torch.full((len(waveforms),), waveforms.size(1)))
    last = int(frames[0]) - 5  # away from the end, whose features include silence
    symbols = torch.randint(log_probs.size(2), (len(waveforms),), generator=torch.Generator().manual_seed(0))
    (-log_probs[torch.arange(len(waveforms)), last, symbols]).sum().backward()
    assert outputs[0].grad is not None
    norms = outputs[0].grad[:, last - distance : last + 1].norm(dim=2).flip(1).clamp(min=1e-38).log().mean(dim=0)
    return (norms - norms[0]).exp().tolist()


def by_layer(model: AcousticModel, batch: Any) -> list[float]:
    """The gradient norm of the CTC loss at the input and after each layer, relative to the last."""
    log_probs, frames, outputs = run_hooked(model, batch.waveforms, batch.lengths)
    ctc_loss(log_probs, frames, batch.tokens, batch.token_lengths).loss.backward()
    norms = [float(tensor.grad.norm()) for tensor in outputs if tensor.grad is not None]
    return [norm / norms[-1] for norm in norms]


def train(model: AcousticModel, batches: list[Any], optimizer: Any, steps: int, clip: float) -> dict[str, list[float]]:
    """Loss and gradient norm of each step (clip 0: no clipping), until the loss is not finite."""
    log: dict[str, list[float]] = {"loss": [], "norm": []}
    for batch in itertools.islice(itertools.cycle(batches), steps):
        optimizer.zero_grad()
        log_probs, frames = model(batch.waveforms, batch.lengths)
        loss = ctc_loss(log_probs, frames, batch.tokens, batch.token_lengths).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
        if not (loss.isfinite() and norm.isfinite()):
            break
        log["loss"].append(loss.item())
        log["norm"].append(norm.item())
        optimizer.step()
    return log


def joined(dataset: SpeechDataset, count: int, seconds: float) -> Tensor:
    """`count` recordings of this length, each of several utterances."""
    order = iter(range(len(dataset.manifest)))
    rows = []
    for _ in range(count):
        parts: list[Tensor] = []
        while sum(map(len, parts)) < seconds * 16000:
            parts.append(dataset[0, next(order)].waveform)
        rows.append(torch.cat(parts)[: round(seconds * 16000)])
    return torch.stack(rows)


def load(args: argparse.Namespace) -> tuple[TrainConfig, Tokenizer, list[Any], Tensor]:
    config = parse_config({"features": {"n_mels": 64}, "data": {"train": args.train, "dev": args.dev}})
    train_set, dev_set = Manifest.read([args.train]), Manifest.read([args.dev])
    tokenizer = make_tokenizer(config.text, train_set)
    datasets = [SpeechDataset(config, manifest, tokenizer, training=False) for manifest in (train_set, dev_set)]
    sampler = BatchSampler(train_set.durations, args.batch_seconds, buckets=8)
    batches = [collate([datasets[0][key] for key in keys]) for keys in sampler]
    return config, tokenizer, batches, joined(datasets[1], args.recordings, (args.distance + 30) * FRAME)


def study(system: str, args: argparse.Namespace, loaded: tuple[TrainConfig, Tokenizer, list[Any], Tensor]) -> Any:
    """All measurements of one system."""
    config, tokenizer, batches, waveforms = loaded
    shape = (args.layers, config, tokenizer.vocab_size)

    def measured(model: AcousticModel) -> dict[str, Any]:
        return {"distance": by_distance(model, waveforms, args.distance), "layer": by_layer(model, batches[0])}

    result = {"before": measured(build(system, *shape))}
    for scale in SCALES if system == "RNN" else ():
        result[f"before, x {scale}"] = {"distance": by_distance(build(system, *shape, scale), waveforms, args.distance)}
    for optimizer, steps in (("adamw", args.steps), ("sgd", args.sgd_steps)):
        for clip in (CLIP, 0.0):
            name, model, started = f"{optimizer}, clip {clip:g}", build(system, *shape), time.process_time()
            log = train(model, batches, OPTIMIZERS[optimizer](model.parameters()), steps, clip)
            print(f"{system}, {name}: loss {log['loss'][-1]:.3f}, {time.process_time() - started:.0f} s", flush=True)
            result[name] = measured(model) | log
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sgd-steps", type=int, default=60)
    parser.add_argument("--batch-seconds", type=float, default=40.0)
    parser.add_argument("--distance", type=int, default=200, help="frames of 40 ms")
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("-o", "--output", type=Path, required=True, help="of OUTPUT.json and OUTPUT.png")
    args = parser.parse_args()
    path = args.output.with_name(args.output.name + ".json")
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"results": {}}
    missing = [system for system in args.systems if system not in report["results"]]
    loaded = load(args) if missing else None
    for system in missing:
        assert loaded
        report["results"][system] = rounded(study(system, args, loaded))
        shape = {name: getattr(args, name) for name in ("layers", "steps", "sgd_steps", "batch_seconds", "recordings")}
        report = provenance() | {"shape": shape, "results": report["results"]}
        path.write_text(json.dumps(report) + "\n", encoding="utf-8")
    show(report["results"])
    draw(report["results"], args.output.with_name(args.output.name + ".png"))


def rounded(value: Any) -> Any:
    """All numbers to three digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else float(f"{value:.3g}")


def draw(results: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.6), layout="constrained")
    (before, after, unclipped), (norms, losses, layers) = figure.subplots(2, 3)
    for system, result in results.items():
        color = COLORS[system]
        for axes, name in ((before, "before"), (after, f"adamw, clip {CLIP:g}"), (unclipped, "sgd, clip 0")):
            axes.plot([max(norm, FLOOR) for norm in result[name]["distance"]], color=color, label=system)
        for scale, style in zip(SCALES, (":", "--"), strict=True):
            if curve := result.get(f"before, x {scale}"):
                label = f"RNN, recurrence x {scale}"
                before.plot([max(norm, FLOOR) for norm in curve["distance"]], style, color=color, label=label)
        for axes, key in ((norms, "norm"), (losses, "loss")):
            axes.plot(result["sgd, clip 0"][key], color=color, label=system)
            axes.plot(result[f"sgd, clip {CLIP:g}"][key], ":", color=color)
        layers.plot(result["before"]["layer"], "-o", color=color, label=system)
        layers.plot(result[f"adamw, clip {CLIP:g}"]["layer"], ":o", color=color)
    titles = {
        before: "before training",
        after: "after training (AdamW, clipped)",
        unclipped: "after training without clipping (SGD)",
        norms: "SGD: solid without, dotted with clipping",
        losses: "SGD: solid without, dotted with clipping",
        layers: "by depth: solid before, dotted after training",
    }
    for axes, title in titles.items():
        axes.set(yscale="log", title=title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    distance = f"distance (frames of {1000 * FRAME:.0f} ms)"
    for axes in (before, after, unclipped):
        axes.set(ylim=(FLOOR, 1e6), xlabel=distance, ylabel="gradient norm, relative")
    norms.set(xlabel="step", ylabel="gradient norm of the step, before clipping")
    losses.set(xlabel="step", ylabel="CTC loss (nats per symbol)")
    layers.set(xlabel="layer (0: the input of the stack)", ylabel="gradient norm, relative to the last layer's")
    layers.xaxis.get_major_locator().set_params(integer=True)
    after.legend(*before.get_legend_handles_labels(), frameon=False, fontsize="small", loc="upper right")
    figure.savefig(path, dpi=80)


def show(results: dict[str, Any]) -> None:
    distances = (10, 25, 50, 100, 200)
    rows = []
    for system, result in results.items():
        for name, measured in result.items():
            cells = [f"{norm:.0e}" if norm > FLOOR else "0" for k in distances for norm in [measured["distance"][k]]]
            loss = f"{statistics.mean(measured['loss'][-10:]):.2f}" if "loss" in measured else ""
            rows.append([system, name, *cells, loss])
    print(text_table(["system", "state", *(f"{k} frames" for k in distances), "loss"], rows, left=2))


if __name__ == "__main__":
    main()
