"""Aligning a recording with its text: recognized words get the times of recognition; texts stay as they are written."""

from __future__ import annotations

import pytest

import asr
from asr.decoding.align import AlignmentError
from asr.recognition.acoustics import Windows
from asr.recognition.alignment import align_recording, merge_words, normalized_words
from asr.recognition.inputs import Recording, as_recording
from asr.types import AudioError, TextError, Word


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return asr.load(tiny_model, device="cpu")


def test_recognized_words_are_aligned_where_they_were_recognized(recognizer, noise):
    source = (noise(3.0, 5), 16000)
    recognized = recognizer.transcribe(source)
    aligned = align_recording(recognizer, as_recording(source), recognized.text)
    assert aligned.text == recognized.text
    assert aligned.duration == recognized.duration
    assert "".join(token.word for token in aligned.tokens).split() == recognized.text.split()
    before = 0.0
    for word, peak in zip(aligned.words, recognized.words, strict=True):
        assert before <= word.start < word.end <= aligned.duration
        assert word.start <= peak.start + 0.02 + 1e-9  # the frame that begins at `start` is centered on it
        assert word.end >= peak.end - 0.02 - 1e-9 or word is aligned.words[-1]
        assert word.confidence == pytest.approx(peak.confidence, abs=1e-5)
        before = word.end


def test_written_words_keep_their_form():
    normalized, written = normalized_words("The twenty-one — \u201cCats\u201d, don't!", "basic")
    assert normalized == ["the", "twenty", "one", "cats", "don't"]
    assert written == [("The", 1), ("twenty-one", 2), ("\u201cCats\u201d,", 1), ("don't!", 1)]
    words = [Word(word, float(i), i + 0.5, 0.9 - i / 10) for i, word in enumerate(normalized)]
    merged = merge_words(words, written)
    assert [(w.word, w.start, w.end) for w in merged[:3]] == [
        ("The", 0.0, 0.5), ("twenty-one", 1.0, 2.5), ("\u201cCats\u201d,", 3.0, 3.5),
    ]  # fmt: skip
    assert merged[1].confidence == pytest.approx(0.7)
    # an apostrophe between two words as written is inside neither: the normalized words stand
    assert normalized_words("a b", "none") == (["a", "b"], [("a", 1), ("b", 1)])


def test_a_long_recording_is_aligned_window_by_window(tiny_model, noise, write_audio, tmp_path):
    recognizer = asr.load(tiny_model, device="cpu")
    path = write_audio(tmp_path / "long.wav", 40.0, seed=3)
    recognizer.windows = Windows(6.0, 2.0)
    recognized = recognizer.transcribe(path)
    aligned = align_recording(recognizer, as_recording(path), recognized.text)
    assert aligned.duration == pytest.approx(40.0)
    shifts = [abs(a.start - h.start) for a, h in zip(aligned.words, recognized.words, strict=True)]
    assert max(shifts) <= 0.15
    assert len(aligned.tokens) > 60


def test_errors_name_the_recording_in_one_line(recognizer, write_audio, tmp_path):
    path = write_audio(tmp_path / "short.wav", 0.3)
    cases = [
        ("", AlignmentError, "the text is empty"),
        (" - ", AlignmentError, "the text is empty"),
        ("abc xyz", TextError, "'x', 'y', 'z' not in the alphabet"),
        ("abcde " * 30, AlignmentError, r"needs at least 7\.2 s of audio .* has 0\.3 s"),
    ]
    for text, kind, message in cases:
        with pytest.raises(kind, match=message) as failure:
            align_recording(recognizer, as_recording(path), text)
        assert str(failure.value).startswith(f"{path}: ")
        assert "\n" not in str(failure.value)
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        align_recording(recognizer, Recording("gone.wav"), "a")


def test_a_text_of_another_recording_is_doubted(recognizer, noise):
    source = as_recording((noise(4.0, 8), 16000))
    assert align_recording(recognizer, source, recognizer.transcribe(source).text).warnings == ()
    assert "hardly fits" in align_recording(recognizer, source, "e e e e e e").warnings[0]
