"""Long recordings: error rate of concatenated utterances against that of the utterances; memory for hours of audio.

    python benchmarks/long_form.py MANIFEST MODEL [MODEL ...] [--lm LM [LM ...]] [--gaps 0.5 0] [--orders 3] [--hours 2]
    python benchmarks/long_form.py MANIFEST MODEL --lm LM --decoders greedy beam_lm --by chapter --gaps 0.5 --orders 0

The utterances of a manifest of real speech are concatenated in several random orders, directly and with half a second
of faint noise after each, and recognized as one recording: in windows, as `asr transcribe` does it, and in one piece.
So are the utterances of each speaker, or (`--by chapter`) of each chapter of LibriSpeech, in their own order, as they
were spoken. The word error rates are compared with that of the utterances one by one, and with how much that itself
moves when every utterance begins 5 to 40 ms later or earlier, which no listener would notice. Decoder
`beam_lm_no_pauses` lets no sentence end before the recording does. Utterances of more than ten seconds are
also recognized in windows of eight, their text compared with that of the whole. Then a file of `--hours` hours is
transcribed by the command in a process of its own, whose peak memory is measured. Fails where windows are more than
0.3 % absolute above the utterances, or beyond 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import asr
from asr.audio.read import read
from asr.corpus.manifest import Manifest
from asr.decoding.make import Decoder, DecodingConfig, make_decoder
from asr.recognition.acoustics import Windows
from asr.recognition.inputs import as_recording
from asr.recognition.recognizer import Recognizer
from asr.scoring.edits import EditCounts, Score, score
from asr.text.normalize import normalize
from asr.training.record import provenance
from asr.types import AsrError

WER_LIMIT = 0.003
MEMORY_LIMIT = 1.5e9  # bytes
SHORT_WINDOWS = Windows(length=8.0, overlap=4.0)
SHIFTS = (5, 15, 25, 40)  # milliseconds
NOISE = 1e-3  # of full scale


def concatenated(waveforms: list[np.ndarray], gap: float, rate: int, seed: int) -> np.ndarray:
    """The waveforms (time,) with `gap` seconds of noise 60 dB below full scale after each."""
    generator = np.random.default_rng(seed)
    parts = []
    for waveform in waveforms:
        noise = generator.standard_normal(round(gap * rate)).astype(np.float32) * NOISE
        parts += [waveform, noise]
    return np.concatenate(parts)


def shifted(waveform: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """The waveform (time,) without its first samples, or, for a negative number, with faint noise before it."""
    if samples >= 0:
        return waveform[samples:]
    noise = np.random.default_rng(seed).standard_normal(-samples).astype(np.float32) * NOISE
    return np.concatenate([noise, waveform])


def rates(results: list[Score]) -> dict[str, Any]:
    """Error rate over all `results`, the rate of each, and what the errors were."""
    counts = sum((result.counts for result in results), EditCounts())
    return {
        "wer": round(counts.rate, 5),
        "of": [round(result.rate, 5) for result in results],
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "words": counts.reference_length,
    }


class Comparison:
    """The utterances of a manifest, recognized apart and together."""

    def __init__(self, recognizer: Recognizer, manifest: str, by: str) -> None:
        self.recognizer, self.rate = recognizer, recognizer.rate
        utterances = list(Manifest.read(manifest))
        self.waveforms = [
            read(u.audio_filepath, offset=u.window[0], duration=u.window[1], rate=self.rate).samples for u in utterances
        ]
        self.references = [normalize(u.text, recognizer.normalizer) for u in utterances]
        self.by = by
        sessions: dict[str, list[int]] = {}
        for i, utterance in enumerate(utterances):
            name = utterance.speaker if by == "speaker" else utterance.id.rpartition("-")[0]
            sessions.setdefault(name, []).append(i)
        self.sessions = list(sessions.values())
        self._emissions: dict[tuple[Any, ...], list[np.ndarray]] = {}  # for the decoders that follow

    def apart(self, milliseconds: int = 0) -> Score:
        samples = round(milliseconds * self.rate / 1000)
        waveforms = (shifted(w, samples, i) for i, w in enumerate(self.waveforms))
        return score(self.references, self._texts(waveforms, Windows(), "apart", milliseconds))

    def in_random_order(self, seed: int, gap: float, windows: Windows | None) -> Score:
        order = list(range(len(self.waveforms)))
        random.Random(seed).shuffle(order)
        return self.together([order], gap, windows, seed)

    def together(self, recordings: list[list[int]], gap: float, windows: Windows | None, seed: int = 0) -> Score:
        """The score of recordings of the utterances of such indices, one after another."""
        waveforms = (concatenated([self.waveforms[i] for i in order], gap, self.rate, seed) for order in recordings)
        heard = self._texts(waveforms, windows, "together", str(recordings), gap, seed)
        return score([" ".join(self.references[i] for i in order) for order in recordings], heard)

    def agreement(self) -> Score | None:
        """The text of long utterances in short windows against that of the whole; None where there are none."""
        long = [w for w in self.waveforms if len(w) > 10.0 * self.rate]
        whole, parts = (self._texts(long, windows, "long") for windows in (None, SHORT_WINDOWS))
        return score(whole, parts) if long else None

    def _texts(self, waveforms: Iterable[np.ndarray], windows: Windows | None, *what: Any) -> list[str]:
        """What the present decoder makes of waveforms; `what` and the windows tell these from others."""
        self.recognizer.windows = windows
        key = (windows, *what)
        found = self._emissions.get(key)
        if found is None:
            recordings = (as_recording((waveform, self.rate)) for waveform in waveforms)
            found = [self.recognizer.emissions_of(recording).log_probs for recording in recordings]
            self._emissions[key] = found
        texts = [self.recognizer.decoder.decode(log_probs)[0].text for log_probs in found]
        return [normalize(text, self.recognizer.normalizer) for text in texts]

    def report(self, gaps: list[float], orders: int) -> dict[str, Any]:
        found: dict[str, Any] = {"utterance_wise": rates([self.apart()])}
        found["shifted"] = rates([self.apart(sign * ms) for sign in (1, -1) for ms in SHIFTS])
        for name, windows in (("windows", Windows()), ("one_piece", None)):
            for gap in gaps:
                if orders:
                    scores = [self.in_random_order(seed, gap, windows) for seed in range(1, orders + 1)]
                    found[f"{name}_gap_{gap:g}"] = rates(scores)
                found[f"{name}_{self.by}s_gap_{gap:g}"] = rates([self.together(self.sessions, gap, windows)])
        agreement = self.agreement()
        return found if agreement is None else found | {"short_windows_against_whole": rates([agreement])}


def memory(model: str, manifest: str, hours: float, rate: int) -> dict[str, Any]:
    """Peak memory and real-time factor of `asr transcribe` on a file of that length."""
    paths = [(u.audio_filepath, u.window) for u in Manifest.read(manifest)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            i = 0
            while file.frames < hours * 3600 * rate:
                name, (offset, duration) = paths[i % len(paths)]
                file.write(
                    concatenated([read(name, offset=offset, duration=duration, rate=rate).samples], 0.5, rate, i)
                )
                i += 1
        started = time.perf_counter()
        command = [sys.executable, "-m", "asr", "transcribe", str(path), "-m", model, "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "hours": hours,
        "peak_bytes": peak,
        "seconds": round(seconds, 1),
        "real_time_factor": round(seconds / (hours * 3600), 5),
        "words": len(done.stdout.split()),
    }


def decoder_of(name: str, recognizer: Recognizer, lm: str | None) -> Decoder:
    config = {
        "greedy": DecodingConfig(decoder="greedy"),
        "beam": DecodingConfig(),
        "beam_lm": DecodingConfig(lm=lm),
        "beam_lm_no_pauses": DecodingConfig(lm=lm, sentence_pause=0.0),
    }
    return make_decoder(config[name], recognizer.tokenizer, recognizer.frame_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("manifest")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--lm", nargs="+", default=[], help="as many as there are models")
    decoders = ["greedy", "beam", "beam_lm", "beam_lm_no_pauses"]
    parser.add_argument("--decoders", nargs="+", default=["greedy"], choices=decoders)
    parser.add_argument("--by", default="speaker", choices=["speaker", "chapter"], help="what is spoken in one go")
    parser.add_argument("--gaps", nargs="+", type=float, default=[0.5, 0.0], help="seconds of noise between utterances")
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0, help="0: leave the memory out")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.lm and len(args.lm) != len(args.models):
        parser.error(f"--lm names {len(args.lm)} language models for {len(args.models)} models")
    if not args.lm and any(name.startswith("beam_lm") for name in args.decoders):
        parser.error("--decoders beam_lm needs --lm")
    report = provenance() | {"manifest": Path(args.manifest).name, "orders": args.orders, "error_rates": []}
    worst = 0.0
    for model, lm in zip_longest(args.models, args.lm):
        recognizer = asr.load(model, device="cpu")
        comparison = Comparison(recognizer, args.manifest, args.by)
        for name in args.decoders:
            recognizer.decoder = decoder_of(name, recognizer, lm)
            found = comparison.report(args.gaps, args.orders)
            report["error_rates"].append({"model": "/".join(Path(model).parts[-2:]), "decoder": name} | found)
            show(report["error_rates"][-1])
            apart = found["utterance_wise"]["wer"]
            worst = max([worst, *(f["wer"] - apart for name, f in found.items() if name.startswith("windows_"))])
    if args.hours:
        report["memory"] = memory(args.models[0], args.manifest, args.hours, recognizer.rate)
        print(json.dumps(report["memory"], indent=1))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.hours and report["memory"]["peak_bytes"] > MEMORY_LIMIT:
        sys.exit(f"more than {MEMORY_LIMIT / 1e9:.1f} GB")
    if worst > WER_LIMIT:
        sys.exit(f"the error rate of windows is {worst:.1%} above that of utterances, more than {WER_LIMIT:.1%}")


def show(entry: dict[str, Any]) -> None:
    print(f"{entry['model']}, {entry['decoder']}")
    for name, found in entry.items():
        if isinstance(found, dict):
            low, high = min(found["of"]), max(found["of"])
            print(f"  {name:<28} {found['wer']:7.2%}   {low:7.2%} to {high:6.2%} in {len(found['of'])}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"long_form.py: error: {error}")
