"""Lhotse's cut sets, as far as they are windows of recordings in files; its other sets are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.types import ManifestError

_KNOWN = ("id", "recording_id", "start", "duration", "channel", "text", "speaker", "alignment")


def is_lhotse(row: dict[str, Any]) -> bool:
    """Whether a JSON object is a cut, a recording or a supervision of lhotse."""
    return bool({"supervisions", "sources", "recording_id"} & row.keys()) and "audio_filepath" not in row


def read_cut(cut: dict[str, Any], folder: Path, place: str) -> Iterator[dict[str, Any]]:
    """A manifest row for each supervision of a cut; relative audio paths start at `folder`, or the current one.

    Raises ManifestError, beginning with `place`, for supervisions or recordings alone, and for cuts that are more than
    a window of one channel, or of all channels, of a file: mixed, padded, or transformed.
    """
    if "supervisions" not in cut:
        raise ManifestError(
            f"{place}: one half of a lhotse corpus: join both with 'lhotse cut simple -r RECORDINGS -s SUPERVISIONS "
            "cuts.jsonl.gz' and convert that"
        )
    recording = cut.get("recording") or {}
    sources = recording.get("sources") or []
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut", "Cut") or len(sources) != 1:
        raise ManifestError(
            f"{place}: a lhotse {cut.get('type', 'cut')} that is no window of one file: export its audio"
        )
    if sources[0].get("type") != "file" or recording.get("transforms"):
        what = "a transformed recording" if recording.get("transforms") else f"audio of type '{sources[0].get('type')}'"
        raise ManifestError(f"{place}: {what}: export it with 'lhotse' to files first")
    path = Path(sources[0]["source"])
    audio = str(path.absolute() if path.exists() else folder / path)
    channels = set(sources[0].get("channels") or [0])
    for supervision in cut["supervisions"]:
        written = supervision.get("channel", 0)
        chosen = set(written) if isinstance(written, list) else {written}
        if chosen != channels and not (len(chosen) == 1 and chosen < channels):
            raise ManifestError(f"{place}: channels {sorted(chosen)} of {sorted(channels)}: name one, or all")
        row: dict[str, Any] = {
            **{key: value for key, value in supervision.items() if key not in _KNOWN and value},
            "id": str(supervision["id"]),
            "audio_filepath": audio,
            "text": supervision.get("text") or "",
        }
        if supervision.get("speaker"):
            row["speaker"] = supervision["speaker"]
        if chosen != channels:
            row["channel"] = min(chosen)
        offset = round(cut.get("start", 0.0) + supervision.get("start", 0.0), 6)
        if (offset, supervision.get("duration")) != (0.0, recording.get("duration")):
            row["offset"] = offset
        yield {**row, "duration": supervision["duration"]}
