"""What can be wrong with a corpus, under the names that `asr data check` prints."""

from __future__ import annotations

from dataclasses import dataclass

# kind: what to do about it
PROBLEMS: dict[str, str] = {
    "malformed row": "correct the line",
    "unreadable audio": "restore the file, or remove the row",
    "damaged audio": "fetch the file again, or remove the row",
    "silent audio": "remove the row",
    "no such channel": "correct 'channel'",
    "wrong duration": "correct 'duration', or leave it out",
    "window outside audio": "correct 'offset' and 'duration'",
    "no duration": "remove the row",
    "empty text": "transcribe it, or remove the row",
    "unknown symbols": "correct the text, or choose another normalizer or tokenizer",
    "infeasible": "correct the text or duration, or remove the row: CTC cannot learn it",
    "impossible pace": "text and audio do not belong together",
    "duplicate audio": "remove the copies",
    "in train and test": "remove it from the training set: scores would be too good",
}
NOTES: dict[str, str] = {
    "tags": "nobody says them: normalizers basic and librispeech leave them out, none and version 1 make words of them",
    "words in parentheses": "kept as words; write them in [ ] if nobody says them",
    "unusual duration": "worth a look",
    "unusual pace": "text or audio may be cut, or belong elsewhere",
    "probably a copy": "same speaker, text and duration",
    "same id": "different recordings of one name in two manifests",
    "shared speakers": "scores do not show how unknown voices fare",
    "shared texts": "scores do not show how unknown sentences fare",
    "audio paths": "",
}


@dataclass(frozen=True)
class Finding:
    """One thing found: its kind (a key of PROBLEMS or NOTES), manifest, utterance id ("" for the whole) and detail."""

    kind: str
    manifest: str
    id: str
    detail: str

    @property
    def is_problem(self) -> bool:
        return self.kind in PROBLEMS
