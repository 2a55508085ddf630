"""The entries of a Kaldi wav.scp: paths, and those commands that only unpack a file or take a channel out of it."""

from __future__ import annotations

import shlex
from pathlib import Path

from asr.types import ManifestError

# Options that leave the samples as they are; those with a value are followed by it.
_PLAIN: dict[str, tuple[str, ...]] = {
    "cat": (),
    "flac": ("--stdout", "--decode", "--silent", "--totally-silent", "-c", "-d", "-s"),
    "sph2pipe": ("-p",),
    "sox": ("-V0", "-V1", "-S", "-q", "-G"),
}
_VALUED: dict[str, dict[str, tuple[str, ...]]] = {
    "sph2pipe": {"-f": ("wav", "rif"), "-c": ("1", "2")},
    "sox": {"-t": ("wav", "wavpcm", "flac", "mp3", "sph", "ogg"), "-b": ("16",), "-e": ("signed", "signed-integer")},
}


def parse_entry(written: str, place: str) -> tuple[str, int | None]:
    """(path, channel from 0, or None) of an entry such as `x.wav`, `flac -cds x.flac |`, `sph2pipe -c 2 x.sph |`.

    Raises ManifestError, beginning with `place`, for commands that do anything else and for places in archives.
    """
    if written.endswith("|"):
        understood = _command(written[:-1])
        if understood is None:
            raise ManifestError(
                f"{place}: '{_cut(written)}' is a command: write its output to a file and name that here"
            )
        return understood
    archive, _, position = written.rpartition(":")
    if archive and position.isdigit() and not Path(written).exists():
        raise ManifestError(f"{place}: '{_cut(written)}' lies inside a Kaldi archive: copy it to a file (wav-copy)")
    return written, None


def channel_command(path: str, channel: int) -> str:
    """The entry that gives one channel of a file, by sox."""
    return f"sox {shlex.quote(path)} -t wav - remix {channel + 1} |"


def channel_number(written: str) -> int | None:
    """The channel, from 0, that a letter (A is the first) or a number from 0 means; None for anything else."""
    if len(written) == 1 and "A" <= written.upper() <= "Z":
        return ord(written.upper()) - ord("A")
    return int(written) if written.isdecimal() and written.isascii() else None


def _command(written: str) -> tuple[str, int | None] | None:
    """What is read and which channel; None where the command is not one of those that are understood in full."""
    try:
        words = shlex.split(written)
    except ValueError:
        return None
    if any(c in written for c in "|;&<>$`*?") or not words:
        return None
    program, words = Path(words[0]).name, words[1:]
    if program == "flac":  # -cds is -c -d -s
        words = [
            part for word in words for part in ([f"-{c}" for c in word[1:]] if word[:1] == "-" != word[1:2] else [word])
        ]
    channel: int | None = None
    if program == "sox" and len(words) > 2 and words[-2] == "remix":
        if not words[-1].isdecimal() or words[-1] == "0":
            return None
        channel, words = int(words[-1]) - 1, words[:-2]
    files, options = [], set()
    while words:
        word = words.pop(0)
        allowed = _VALUED.get(program, {}).get(word)
        if allowed is not None:
            if not words or words[0] not in allowed:
                return None
            channel = int(words[0]) - 1 if word == "-c" else channel
            del words[0]
        elif word.startswith("-") and word != "-":
            if word not in _PLAIN.get(program, ()):
                return None
            options.add(word)
        else:
            files.append(word)
    if program == "sox" and files[-1:] == ["-"]:
        files.pop()
    encodes = program == "flac" and not options & {"-d", "--decode"}
    return (files[0], channel) if program in _PLAIN and len(files) == 1 and files[0] != "-" and not encodes else None


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:40] + " ... " + text[-15:]
