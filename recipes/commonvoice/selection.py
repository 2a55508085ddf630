"""Which clips to train on, by votes, digits, the held-out sets, and an alphabet that the user confirms."""

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
_SHOWN = 12  # rarest characters to print


def learnable(clips: list[Utterance], held_out: list[Utterance], digits: bool) -> list[Utterance]:
    """The clips with a majority of votes that share no speaker or sentence with `held_out`; with `digits`, also those
    whose text has digits.

    The official training set shares no speakers with the other sets. Prints the number of clips left out, by reason.
    """
    speakers = {utterance.speaker for utterance in held_out}
    sentences = {utterance.text for utterance in held_out}
    kept, left_out = [], Counter[str]()
    for clip in clips:
        up, down = (int(clip.extra.get(key, "0")) for key in ("up_votes", "down_votes"))
        if "up_votes" in clip.extra and up <= down:
            left_out["without a majority of votes"] += 1
        elif clip.speaker in speakers:
            left_out["of speakers of the dev or test set"] += 1
        elif clip.text in sentences:
            left_out["with a sentence of the dev or test set"] += 1
        elif not digits and any(character.isdigit() for character in clip.text):
            left_out["with digits, which can be read in several ways"] += 1
        else:
            kept.append(clip)
    for reason, count in left_out.items():
        print(f"left out of training: {count} clips {reason}", file=sys.stderr)
    return kept


def with_alphabet(utterances: list[Utterance], chosen: str, rules: str, proposal: Path) -> list[Utterance]:
    """The utterances whose text has no character outside the alphabet `chosen`: a file, or ALL for every character.

    On a line of the file, anything after a tab is ignored. `rules` is the normalizer for the texts. If `chosen` is "",
    the characters are written to `proposal`, the most frequent first, and UsageError tells what to do. Prints the
    number of clips left out, by character.
    """
    normalize = normalizer(rules)
    texts = [set(normalize(utterance.text)) - {" "} for utterance in utterances]
    counter = Counter(character for text in texts for character in text)
    counts = dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
    rarest = ", ".join(f"{shown_symbol(c)} in {n}" for c, n in list(counts.items())[: -_SHOWN - 1 : -1])
    print(f"alphabet: {len(counts)} characters after the normalizer {rules}; the rarest: {rarest}", file=sys.stderr)
    if not chosen:
        if not proposal.exists():  # or it may be corrected already
            write_text(proposal, "".join(f"{c}\t{n}\n" for c, n in counts.items()))
        raise UsageError(
            f"{proposal} lists the characters of the training texts and how many clips have them: delete the lines of "
            f"those that are not letters of the language, then use --alphabet {proposal} (or --alphabet {ALL})"
        )
    if chosen == ALL:
        return utterances
    letters = {character for line in read_lines(chosen, UsageError) for character in line.partition("\t")[0]}
    outside = Counter(character for text in texts for character in text - letters)
    for character, count in sorted(outside.items(), key=lambda item: (-item[1], item[0])):
        print(f"left out of training: {count} clips with {shown_symbol(character)}", file=sys.stderr)
    return [utterance for utterance, text in zip(utterances, texts, strict=True) if text <= letters]


def shared_sentences(sets: dict[str, list[Utterance]]) -> Iterable[str]:
    """A line for each pair of sets that have sentences in common."""
    texts = {name: {utterance.text for utterance in rows} for name, rows in sets.items()}
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        if shared := texts[first] & texts[second]:
            yield f"{len(shared)} sentences are in {first} and in {second}, e.g. {min(shared)!r}"
