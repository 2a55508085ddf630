"""How fast transcribing, training steps and decoding are on this machine, by parts, with machine, versions, commit.

python benchmarks/throughput.py transcribe test.jsonl -m model.asr --precision float32,bfloat16,int8 -o out
python benchmarks/throughput.py transcribe --random 5x512 --batch-size 1,8 --threads 1,2
python benchmarks/throughput.py train --random 3x320 --seconds 12 --batch-size 4,8
python benchmarks/throughput.py decode test.jsonl -m model.asr
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asr.commands import options
from asr.types import AsrError, UsageError

EPILOG = """\
int8 quantizes the inputs of a layer by the largest value in the whole batch, so that what is heard in an utterance
depends a little on its neighbors: only with batch size 1 is the word error rate that of the utterances themselves.
float32 and bfloat16 give every utterance the same in any batch.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("what", choices=["transcribe", "train", "decode"], help="what to measure")
    parser.add_argument("manifest", nargs="?", metavar="MANIFEST", help="utterances to work on (default: noise)")
    parser.add_argument("-m", "--model", metavar="MODEL", help="model file (.asr)")
    parser.add_argument("--random", default="5x512", metavar="LxW", help="without -m: layers x width, untrained")
    parser.add_argument("--batch-size", type=_numbers, default=[1, 8], metavar="N[,N]", help="default: 1,8")
    parser.add_argument("--threads", type=_numbers, metavar="N[,N]", help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--precision", default="float32", metavar="P[,P]", help="float32 (default), bfloat16, int8 (see below)"
    )
    parser.add_argument("--decoder", default="greedy", metavar="D[,D]", help="for decode (default: greedy)")
    parser.add_argument("--limit", type=options.positive, default=32, metavar="N", help="utterances (default: 32)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each noise (default: 10)")
    parser.add_argument("--steps", type=options.positive, default=5, metavar="N", help="for train (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or auto")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout instead of the table")
    parser.add_argument("-o", "--output", metavar="DIR", help="write WHAT.json and WHAT.png here")


def run(args: argparse.Namespace) -> int:
    if not args.seconds > 0:
        raise UsageError(f"--seconds must be positive, found {args.seconds:g}")
    if args.what == "train" and args.manifest:
        raise UsageError("train works on noise: leave MANIFEST out, --seconds sets the length")
    from pathlib import Path

    import throughput_material as material
    from throughput_report import draw, table

    from asr.files import write_text
    from asr.recognition.acoustics import choose_device
    from asr.recognition.outputs import OutputFolder

    folder = OutputFolder(args.output, ()).folder if args.output else None
    file = material.load(args.model, args.random, choose_device(args.device))
    rows: list[dict[str, Any]] = []
    for row in _MEASURES[args.what](args, file):
        rows.append(row)
        options.say(f"asr: {table([row]).splitlines()[-1].strip()}")
    report = {"benchmark": args.what, **_conditions(args), "model": material.described(file), "results": rows}
    if folder is not None:
        write_text(Path(folder) / f"{args.what}.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        draw(rows, Path(folder) / f"{args.what}.png", f"{args.what}: {report['model']['architecture']}")
    print(json.dumps(report, ensure_ascii=False) if args.json else table(rows))
    return 0


def _transcribe(args: argparse.Namespace, file: Any) -> Iterator[dict[str, Any]]:
    import tempfile
    from pathlib import Path

    import throughput_material as material
    from throughput_transcribe import bench_transcribe

    precisions = _names(args.precision, material.PRECISIONS, "precision")
    with tempfile.TemporaryDirectory() as folder:
        clips = material.clips_of(args.manifest, args.limit, Path(folder), file.feature_config.rate, args.seconds)
        yield from bench_transcribe(
            file, clips, batch_sizes=args.batch_size, threads=_threads(args), precisions=precisions
        )


def _train(args: argparse.Namespace, file: Any) -> Iterator[dict[str, Any]]:
    from throughput_train import bench_train

    return bench_train(
        file, seconds=args.seconds, batch_sizes=args.batch_size, threads=_threads(args), steps=args.steps
    )


def _decode(args: argparse.Namespace, file: Any) -> Iterator[dict[str, Any]]:
    import tempfile
    from pathlib import Path

    import throughput_material as material
    from throughput_decode import bench_decode

    from asr.decoding.make import DECODERS

    decoders = _names(args.decoder, DECODERS, "decoder")
    with tempfile.TemporaryDirectory() as folder:
        clips = material.clips_of(args.manifest, args.limit, Path(folder), file.feature_config.rate, args.seconds)
        yield from bench_decode(file, clips, decoders=decoders)


_MEASURES: dict[str, Callable[[argparse.Namespace, Any], Iterator[dict[str, Any]]]] = {
    "transcribe": _transcribe,
    "train": _train,
    "decode": _decode,
}


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on and with."""
    from pathlib import Path

    from asr.training.record import provenance

    data = Path(args.manifest).name if args.manifest else f"noise of {args.seconds:g} s"
    return {**provenance(), "model_file": Path(args.model).name if args.model else "", "data": data}


def _threads(args: argparse.Namespace) -> list[int]:
    import torch

    return args.threads or [torch.get_num_threads()]


def _names(text: str, known: tuple[str, ...], kind: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise UsageError(f"{kind} '{name}' is not one of {', '.join(known)}")
    if not names:
        raise UsageError(f"no {kind} given (valid: {', '.join(known)})")
    return names


def _numbers(text: str) -> list[int]:
    return [options.positive(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except AsrError as error:
        print(f"throughput: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
