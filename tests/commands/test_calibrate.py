"""`asr calibrate`: confidences before and after, and a model that carries them."""

from __future__ import annotations

import json

import pytest

import asr
from asr.__main__ import main
from asr.decoding.confidence import fit_calibration
from asr.recognition.evaluation import held_out
from asr.scoring.breakdown import WordConfidences, pooled


def test_held_out_words_are_measured_under_calibrations_that_have_not_seen_them():
    utterances = [WordConfidences((0.9, 0.8), (i % 2 == 0, True)) for i in range(10)]
    odd = WordConfidences((0.9, 0.9), (False, False))
    speakers = [f"s{i // 2}" for i in range(10)]
    found = held_out([*utterances, odd], [*speakers, "odd"])
    assert sorted(found.correct) == sorted(pooled([*utterances, odd]).correct)
    unseen = pooled(utterances[2:10])  # s0 and odd, the first and the sixth speaker, are one fold
    change = fit_calibration(unseen.confidences, unseen.correct)
    assert found.confidences[:6] == pytest.approx([change(c) for c in (0.9, 0.8, 0.9, 0.8, 0.9, 0.9)])
    assert held_out([odd], ["s"]) is None
    assert len(held_out([odd, WordConfidences()], ["", ""]).confidences) == 2


@pytest.fixture
def dev(tiny_model, write_audio, tmp_path):
    """A manifest of noise whose texts are partly what the model hears."""
    model = asr.load(tiny_model)
    rows = []
    for i in range(6):
        text = model.transcribe(write_audio(tmp_path / f"{i}.wav", 1.0 + i / 5, seed=i)).text
        text = text if i % 2 else "abc " + text[3:]
        rows.append({"id": str(i), "audio_filepath": f"{i}.wav", "duration": 1.0 + i / 5, "text": text})
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_calibrated_model(dev, tiny_model, tmp_path, capsys):
    new = tmp_path / "new.asr"
    assert main(["calibrate", str(dev), "-m", str(tiny_model), "-o", str(new), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["before"]["words"] == figures["held_out"]["words"] > 0
    plain, calibrated = asr.load(tiny_model), asr.load(new)
    one, other = plain.transcribe(tmp_path / "1.wav"), calibrated.transcribe(tmp_path / "1.wav")
    assert other.text == one.text
    assert [w.confidence for w in other.words] == pytest.approx(
        [calibrated.calibration(w.confidence) for w in one.words], abs=1e-6
    )
    assert plain.calibration is None
    assert main(["calibrate", str(dev), "-m", str(new)]) == 0  # starts from the model's own confidences
    out = capsys.readouterr().out
    assert "\nbefore  " in out and "\nafter   " in out
    assert out.startswith(f"temperature {figures['temperature']:.3f}, offset {figures['offset']:+.3f}\n")
    assert main(["calibrate", str(dev), "-m", str(tiny_model), "-o", str(new)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["info", str(new)]) == 0


def test_nothing_to_calibrate_on(tiny_model, tmp_path, capsys):
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps({"audio_filepath": "gone.wav", "duration": 1.0, "text": "a"}) + "\n", encoding="utf-8")
    assert main(["calibrate", str(path), "-m", str(tiny_model)]) == 1
    err = capsys.readouterr().err
    assert "nothing to calibrate on" in err
    assert "Traceback" not in err
