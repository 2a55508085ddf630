"""Reading for training from single files and from shards: seconds of audio a second, without a model, cold and warm.

    python benchmarks/shards.py [--manifest MANIFEST] [--copies 4] [--output benchmarks/results/shards.json]

Without a manifest it synthesizes a corpus. Cold: before each pass the system is asked to drop the pages of the files
read (posix_fadvise DONTNEED, file by file). Folders and names stay cached, so that opening files is cheaper than it is
on a disk that was just mounted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.members import file_of
from asr.corpus.batching import BatchSampler
from asr.corpus.manifest import Manifest, write_manifest
from asr.corpus.shards import write_shards
from asr.text.tokenizer import train_char
from asr.training.config import TrainConfig
from asr.training.data import ReadAhead, data_loader
from asr.training.dataset import SpeechDataset
from asr.training.record import provenance

BATCH_SECONDS, WINDOW_SECONDS = 120.0, 1800.0


def synthesized(folder: Path, count: int = 2000) -> Path:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        samples = generator.standard_normal(round(16000 * generator.uniform(2, 10))) * 0.05
        path = folder / f"{number:06d}.flac"
        soundfile.write(path, samples, 16000)
        rows.append({"audio_filepath": path.name, "duration": len(samples) / 16000, "text": "noise"})
    manifest = folder / "noise.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


def copied(manifest: Manifest, folder: Path, copies: int) -> Manifest:
    """The recordings, `copies` times over, as files of their own in `folder`."""
    rows = []
    for number in range(copies):
        for i, utterance in enumerate(manifest):
            target = folder / f"{number}-{i}{Path(utterance.audio_filepath).suffix}"
            shutil.copyfile(utterance.audio_filepath, target)
            name = {"id": f"{utterance.id}-{number}", "audio_filepath": str(target)}
            rows.append({**name, "duration": utterance.duration, "text": utterance.text})
    return Manifest.from_rows(rows, str(folder / "copies.jsonl"))


def forget(manifest: Manifest) -> None:
    """Ask the system to drop the pages of all files of the manifest, written back before."""
    for path in {file_of(utterance.audio_filepath) for utterance in manifest}:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def one_pass(manifest: Manifest, windows: bool, workers: int, cold: bool) -> float:
    """Seconds of audio a second over an epoch."""
    tokenizer = train_char(utterance.text.lower() for utterance in manifest)
    dataset = SpeechDataset(TrainConfig(), manifest, tokenizer, training=False)
    sampler = BatchSampler(manifest.durations, BATCH_SECONDS, window_seconds=WINDOW_SECONDS if windows else 0.0)
    batches = ReadAhead(sampler, manifest) if windows else sampler
    if cold:
        forget(manifest)
    started = time.perf_counter()
    read = sum(int(batch.lengths.sum()) for batch in data_loader(dataset, batches, workers))
    return read / dataset.rate / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write the files and shards: the disk to measure")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        (folder / "files").mkdir()
        files = copied(Manifest.read(args.manifest or synthesized(folder)), folder / "files", args.copies)
        write_manifest(folder / "files.jsonl", files)
        started = time.perf_counter()
        shards = write_shards(files, folder / "shards", size=100_000_000, jobs=os.cpu_count() or 1)
        writing = time.perf_counter() - started
        sets = {"files": (files, False), "shards": (Manifest.read(shards.index), True)}
        hours = float(files.durations.sum(dtype=np.float64)) / 3600
        results: dict[str, list[float]] = {}
        for _ in range(args.runs):
            for kind, (manifest, windows) in sets.items():
                for cold in (True, False):
                    speed = one_pass(manifest, windows, args.workers, cold)
                    results.setdefault(f"{kind}, {'cold' if cold else 'warm'}", []).append(round(speed))
        report = provenance() | {
            "utterances": len(files),
            "hours": round(hours, 2),
            "workers": args.workers,
            "seconds to write the shards": round(writing, 1),
            "cold": "posix_fadvise DONTNEED of each file",
            "seconds of audio a second": results,
        }
    for kind, speeds in results.items():
        print(f"{kind:14s} {statistics.median(speeds):8,.0f} s of audio a second (median of {args.runs}: {speeds})")
    print(f"{len(files)} utterances, {hours:.2f} h; shards written in {writing:.1f} s")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
