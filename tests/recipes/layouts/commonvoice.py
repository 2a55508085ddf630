"""A Common Voice release: cv-corpus-N-DATE/LANGUAGE with clips/*.mp3 and tables of the columns since release 17."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar

FOLDER = "cv-corpus-24.0-2025-12-05/cy"
COLUMNS = (
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender"),
    *("accents", "variant", "locale", "segment"),
)
# (speaker, sentence, up votes, down votes) by table
CLIPS = {
    "train": [("a", "Bore da, ffrind!", 2, 0), ("a", 'Mae "hi" yma.', 3, 1), ("b", "Tŷ bach twt.", 2, 0)],
    "dev": [("c", "Nos da.", 2, 0), ("c", "Bore da, ffrind!", 2, 0)],
    "test": [("d", "Hwyl fawr, 2 waith.", 2, 0)],
    "other": [("e", "Heb bleidlais.", 0, 0)],
    "invalidated": [("e", "Anghywir.", 0, 2)],
    "validated": [
        ("b", "Diolch yn fawr.", 2, 0),
        ("b", "Dim 3 ci.", 2, 0),
        ("b", "Croeso.", 1, 1),
        ("c", "Sut mae?", 2, 0),
    ],
}


def files(clips: dict[str, list[tuple[str, str, int, int]]] = CLIPS) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    durations, tables = ["clip\tduration[ms]\n"], {}
    for table, rows in clips.items():
        lines = []
        for i, (speaker, sentence, up, down) in enumerate(rows):
            name = f"common_voice_cy_{table}{i:04d}.mp3"
            found[f"{FOLDER}/clips/{name}"] = audio_bytes(name, "MP3")
            durations.append(f"{name}\t800\n")
            cells = (speaker * 64, name, "s" * 8, sentence, "", up, down, "", "", "", "", "cy", "")
            lines.append("\t".join(map(str, cells)) + "\n")
        tables[table] = lines
    tables["validated"] += [line for name in ("train", "dev", "test") for line in tables[name]]
    for table, lines in tables.items():
        found[f"{FOLDER}/{table}.tsv"] = ("\t".join(COLUMNS) + "\n" + "".join(lines)).encode()
    return found | {f"{FOLDER}/clip_durations.tsv": "".join(durations).encode()}


def make(folder: Path) -> list[str]:
    return ["--archive", str(write_tar(folder / "cv-corpus-24.0-2025-12-05-cy.tar.gz", files())), "--alphabet", "all"]
