"""Which clips are learned from: by votes, digits, the held-out sets, and an alphabet that the user confirms."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import read_lines, write_text
from asr.text.normalize import normalizer
from asr.text.tokenizer import shown_symbol
from asr.types import UsageError

ALL = "all"
_SHOWN = 12  # rarest characters on a line


def learnable(clips: list[Utterance], held_out: list[Utterance], digits: bool) -> list[Utterance]:
    """The clips with a majority of votes, and unless `digits` without digits, of which `held_out` has nothing.

    A clip of a speaker or with a sentence of `held_out` is left out, too; of the official training set there is none of
    such a speaker. What goes is counted by its reason.
    """
    speakers = {utterance.speaker for utterance in held_out}
    sentences = {utterance.text for utterance in held_out}
    kept, gone = [], Counter[str]()
    for clip in clips:
        up, down = (int(clip.extra.get(key, "0")) for key in ("up_votes", "down_votes"))
        if "up_votes" in clip.extra and up <= down:
            gone["without a majority of votes"] += 1
        elif clip.speaker in speakers:
            gone["of speakers of the dev or test set"] += 1
        elif clip.text in sentences:
            gone["with a sentence of the dev or test set"] += 1
        elif not digits and any(character.isdigit() for character in clip.text):
            gone["with digits, which can be read in several ways"] += 1
        else:
            kept.append(clip)
    for reason, count in gone.items():
        print(f"left out of training: {count} clips {reason}", file=sys.stderr)
    return kept


def with_alphabet(utterances: list[Utterance], chosen: str, rules: str, proposal: Path) -> list[Utterance]:
    """The utterances whose text has no character outside the alphabet `chosen`: a file, or ALL for every character.

    In the file, what follows a tab on a line does not count. `rules` names the normalizer that the texts will go
    through. Without a choice the characters are written to `proposal`, the most frequent first, and UsageError says
    what to do. What is left out is counted by character.
    """
    normalize = normalizer(rules)
    texts = [set(normalize(utterance.text)) - {" "} for utterance in utterances]
    found = Counter(character for text in texts for character in text)
    counts = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    rarest = ", ".join(f"{shown_symbol(c)} in {n}" for c, n in list(counts.items())[: -_SHOWN - 1 : -1])
    print(f"alphabet: {len(counts)} characters after the normalizer {rules}; the rarest: {rarest}", file=sys.stderr)
    if not chosen:
        if not proposal.exists():  # or it may be corrected already
            write_text(proposal, "".join(f"{c}\t{n}\n" for c, n in counts.items()))
        raise UsageError(
            f"{proposal} lists the characters of the training texts with the number of clips: delete the lines of those"
            f" that are no letters of the language, then say --alphabet {proposal} (or --alphabet {ALL})"
        )
    if chosen == ALL:
        return utterances
    letters = {character for line in read_lines(chosen, UsageError) for character in line.partition("\t")[0]}
    outside = Counter(character for text in texts for character in text - letters)
    for character, count in sorted(outside.items(), key=lambda item: (-item[1], item[0])):
        print(f"left out of training: {count} clips with {shown_symbol(character)}", file=sys.stderr)
    return [utterance for utterance, text in zip(utterances, texts, strict=True) if text <= letters]


def shared_sentences(sets: dict[str, list[Utterance]]) -> Iterable[str]:
    """A line for each two sets that have sentences in common."""
    texts = {name: {utterance.text for utterance in rows} for name, rows in sets.items()}
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        if shared := texts[first] & texts[second]:
            yield f"{len(shared)} sentences are in {first} and in {second}, e.g. {min(shared)!r}"
