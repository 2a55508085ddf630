"""`asr calibrate`: confidences before and after, and a model that carries them."""

from __future__ import annotations

import json

import pytest

import asr
from asr.__main__ import main
from asr.calibration import judged_words
from asr.transcript import Word


def test_words_are_right_where_the_reference_has_them():
    words = [Word(w, i, i + 0.5, 0.1 * i) for i, w in enumerate(["The", "Twenty-one", "cat", "sat"])]
    confidences, correct = judged_words(["the twenty two cats sat down"], [words], "basic")
    assert confidences == pytest.approx([0.0, 0.1, 0.1, 0.2, 0.3])
    assert correct == [True, True, False, False, True]
    assert judged_words(["a", ""], [[], [Word("b", 0, 1, 0.5)]], "basic") == ([0.5], [False])


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
    assert figures["before"]["words"] == figures["after"]["words"] > 0
    entropies = [figures[k]["normalized_cross_entropy"] for k in ("before", "after")]
    assert entropies[1] >= entropies[0]
    plain, calibrated = asr.load(tiny_model), asr.load(new)
    one, other = plain.transcribe(tmp_path / "1.wav"), calibrated.transcribe(tmp_path / "1.wav")
    assert other.text == one.text
    assert [w.confidence for w in other.words] == pytest.approx(
        [calibrated.calibration(w.confidence) for w in one.words], abs=1e-6
    )
    assert plain.calibration is None
    assert main(["calibrate", str(dev), "-m", str(new)]) == 0  # starts from the model's own confidences
    out = capsys.readouterr().out
    assert out.startswith(f"temperature {figures['temperature']:.3f}, offset {figures['offset']:+.3f}\n")
    assert main(["calibrate", str(dev), "-m", str(tiny_model), "-o", str(new)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["info", str(new)]) == 0


def test_nothing_to_calibrate_on(tiny_model, tmp_path, capsys):
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps({"audio_filepath": "gone.wav", "duration": 1.0, "text": "a"}) + "\n", encoding="utf-8")
    assert main(["calibrate", str(path), "-m", str(tiny_model)]) == 1
    err = capsys.readouterr().err
    assert "nothing to calibrate on" in err
    assert "Traceback" not in err
