"""TIMIT (Garofolo et al., 1993): phones, with the usual dev and core test speakers and without `sa` sentences."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import read_lines, walk
from asr.recipe.corpus import Corpus, add_source_arguments, obtain
from asr.recipe.sets import with_durations, write_sets
from asr.types import ManifestError, UsageError

CORPUS = Corpus(
    speech="American English, 630 speakers read phonetically rich sentences",
    hours=5.4,
    license="LDC user agreement",
    homepage="https://catalog.ldc.upenn.edu/LDC93S1",
    disk_gb=0.7,
    by_hand="the LDC sells it (LDC93S1)",
    set_hours={"train": 3.1},
    mean_seconds=3.1,
)
_PHONES = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl l "
    "m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
# Kaldi's list (egs/timit/s5/conf/dev_spk.list) of test speakers who are not in the core test set.
_DEV = (
    "fadg0 faks0 fcal1 fcmh0 fdac1 fdms0 fdrw0 fedw0 fgjd0 fjem0 fjmg0 fjsj0 fkms0 fmah0 fmml0 fnmr0 frew0 fsem0 majc0 "
    "mbdg0 mbns0 mbwm0 mcsh0 mdlf0 mdls0 mdvc0 mers0 mgjf0 mglb0 mgwt0 mjar0 mjfc0 mjsw0 mmdb1 mmdm2 mmjr0 mmwh0 mpdf0 "
    "mrcs0 mreb0 mrjm4 mrjr0 mroa0 mrtk0 mrws1 mtaa0 mtdt0 mteb0 mthc0 mwjg0"
)
# The core test set of the corpus (TESTSET.DOC): two men and a woman from each dialect region.
_CORE = (
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 "
    "mnjm0 fdhc0 mjln0 mpam0 fmld0"
)
PHONES, DEV, CORE = (frozenset(names.split()) for names in (_PHONES, _DEV, _CORE))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` with TIMIT's 61 phones below `args.data`; `text.normalizer` folds them."""
    folders = find_splits(obtain(args, CORPUS, ""))
    train, rest = (with_durations(list(read_split(folders[name]))) for name in ("train", "test"))
    if missing := (DEV | CORE) - {utterance.speaker for utterance in rest}:
        raise ManifestError(f"{folders['test']}: no sentences of the speaker '{min(missing)}': unpack TIMIT again")
    sets = {name: [u for u in rest if u.speaker in chosen] for name, chosen in (("dev", DEV), ("test", CORE))}
    write_sets(args.data, {"train": train, **sets})


def find_splits(root: Path) -> dict[str, Path]:
    """The folders TRAIN and TEST, in either case, of TIMIT or of a folder up to two levels above it."""
    for folder in (root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))):
        found = {path.name.lower(): path for path in folder.glob("*/")}
        if found.keys() >= {"train", "test"}:
            return found
    raise UsageError(f"{root}: contains no folders TRAIN and TEST: name the folder TIMIT of LDC93S1")


def read_split(folder: Path) -> Iterator[Utterance]:
    """The sentences below `folder` (DR1/FCJF0/SI1027.WAV with phones in SI1027.PHN), except `sa1` and `sa2`."""
    for below, names in walk(folder):
        files = {name.lower(): below / name for name in names}
        for name in sorted(files):
            sentence, _, suffix = name.partition(".")
            if suffix != "wav" or sentence.startswith("sa"):  # some copies also have SI1027.WAV.wav
                continue
            if f"{sentence}.phn" not in files:
                raise ManifestError(f"{files[name]}: no {sentence.upper()}.PHN beside it: unpack TIMIT again")
            speaker = below.name.lower()
            text = " ".join(read_phones(files[f"{sentence}.phn"]))
            yield Utterance(f"{speaker}-{sentence}", str(files[name]), 0.0, text, speaker=speaker)


def read_phones(path: Path) -> Iterator[str]:
    """`START END PHONE` lines, in samples."""
    for number, line in enumerate(read_lines(path, ManifestError), start=1):
        fields = line.lower().split()
        if fields and (len(fields) != 3 or fields[2] not in PHONES):
            raise ManifestError(f"{path}:{number}: expected START END PHONE, one of TIMIT's 61 phones, found {line!r}")
        yield from fields[2:]
