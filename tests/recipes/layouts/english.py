"""Manifests of two corpora of English, one of them with splits of its own."""

from __future__ import annotations

import json
from pathlib import Path

from archives import audio_bytes, write_files


def make(folder: Path) -> list[str]:
    files = {}
    for name, speakers in {"many": 12, "books/train": 2, "books/dev": 1, "books/test": 1}.items():
        rows = []
        for number in range(speakers):
            path = f"audio/{name.replace('/', '-')}-{number}.wav"
            files[path] = audio_bytes(path)
            audio = str(folder / path)
            rows.append({"audio_filepath": audio, "duration": 0.8, "text": "it's a test", "speaker": f"s{number}"})
        files[f"manifests/{name}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    write_files(folder, files)
    return ["--manifests", str(folder / "manifests")]
