"""The LibriSpeech recipe on a part of train-clean-100, speakers held out: from nothing, and from english-14h.

    python benchmarks/librispeech_part.py PART/all.jsonl train-clean-100.text.gz --start model nothing [key=value ...]

PART/all.jsonl is a manifest with speakers; the text holds lines `ID TEXT`. Of the speakers with a single utterance, an
eighth is held out for dev and an eighth for the test set; `--test NAME=MANIFEST` adds another test set. The language
model is estimated from the text without the held-out speakers, or it would know the test sentences. english-14h has
heard the speech of this part, held-out speakers included: only the added test set says how it does on new speakers.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from asr.files import write_text

RECIPE = Path(__file__).parents[1] / "recipes" / "librispeech" / "run.py"
# The recipe's 100 h configurations are for a GPU; these settings fit hours of speech and a CPU.
SETTINGS = {
    "nothing": ["model.hidden_size=256", "model.layers=3", "optimizer.lr=2e-3"],
    "model": [
        "init=english-14h",
        "model.hidden_size=384",
        "model.layers=4",
        "optimizer.lr=4e-4",
        "trainer.max_epochs=4",
    ],
}
EPOCHS = {"nothing": 24, "model": 4}
SHARED = ["data.batch_seconds=60", "data.workers=0", "optimizer.warmup_steps=200", "augment.time_masks=4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    parser.add_argument("--start", choices=list(SETTINGS), required=True)
    parser.add_argument("--test", action="append", default=[], metavar="NAME=MANIFEST")
    parser.add_argument("--data", type=Path, default=Path("data/librispeech-part"))
    parser.add_argument("--output", type=Path, default=Path("exp/librispeech-part"))
    args = parser.parse_intermixed_args()
    held_out = split(args.manifest, args.data)
    with gzip.open(args.text, "rt") as lines:
        rows = [line.rstrip("\n").split(" ", 1) for line in lines]
    kept = [text for name, text in rows if name.split("-")[0] not in held_out]
    write_text(args.data / "text.txt", "".join(text + "\n" for text in kept))
    sets = [f"data.{name}={args.data / name}.jsonl" for name in ("train", "dev")]
    tests = [f"part={args.data / 'test'}.jsonl", *args.test]
    sets += [
        "data.test={" + ", ".join(test.replace("=", ": ") for test in tests) + "}",
        f"lm.text={args.data / 'text.txt'}",
    ]
    command = [sys.executable, str(RECIPE), "--config", "100h-char-lstm", "--steps", "tokenizer,train,lm,evaluate"]
    command += [
        "--output",
        str(args.output / args.start),
        *sets,
        *SHARED,
        *SETTINGS[args.start],
        f"trainer.max_epochs={EPOCHS[args.start]}",
        *args.settings,
    ]
    sys.exit(subprocess.run(command).returncode)


def split(manifest: Path, folder: Path) -> set[str]:
    """Write train, dev and test manifests; the speakers that are not in train."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    utterances = Counter(row["speaker"] for row in rows)
    sets: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    held_out = set()
    for row in rows:
        place = int(hashlib.sha256(row["speaker"].encode()).hexdigest(), 16) % 8
        name = {0: "test", 1: "dev"}.get(place, "train") if utterances[row["speaker"]] == 1 else "train"
        if name != "train":
            held_out.add(row["speaker"])
        audio = manifest.parent.absolute() / row["audio_filepath"]
        sets[name].append(json.dumps(row | {"audio_filepath": str(audio)}) + "\n")
    for name, lines in sets.items():
        write_text(folder / f"{name}.jsonl", "".join(lines))
        print(f"{name}: {len(lines)} utterances")
    return held_out


if __name__ == "__main__":
    main()
