"""Reading trn, JSONL and txt, pairing by id: nothing dropped in silence, every malformed input one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.scoring.text_files import read_texts, with_speakers
from asr.scoring.texts import TextsError, pair
from asr.types import UsageError


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(content, encoding="utf-8")
        return str(path)

    return write


def contents(texts):
    return [(line.id, line.text) for line in texts.lines]


def test_trn_has_ids_comments_and_empty_texts(write):
    texts = read_texts(write("a.trn", "\ufeffa b (u1)\r\n;; said twice (u9)\n(u2)\n\nc (uh) d  (u-3_x)\n"))
    assert (texts.format, texts.numbered) == ("trn", False)
    assert contents(texts) == [("u1", "a b"), ("u2", ""), ("u-3_x", "c (uh) d")]


def test_jsonl_takes_pred_text_of_hypotheses_and_what_is_known(write):
    rows = [
        {"id": "u1", "text": "a", "pred_text": "b", "speaker": 7, "duration": 2, "snr": 12.5,
         "audio_filepath": "x/1.wav"},
        {"audio_filepath": "x/2.wav", "text": "c", "offset": 1.5, "duration": 1.0},
        {"audio_filepath": "y/2.wav", "text": "", "pred_text": None},
        {"audio_filepath": "z/2.wav", "text": "d", "pred_text": "", "id": 12},
    ]  # fmt: skip
    path = write("a.jsonl", rows)
    references, hypotheses = read_texts(path), read_texts(path, hypotheses=True)
    assert contents(references) == [("u1", "a"), ("2@1.500", "c"), ("2", ""), ("12", "d")]
    assert [line.text for line in hypotheses.lines] == ["b", None, None, ""]
    assert hypotheses.predicted
    first = references.lines[0]
    assert (first.speaker, first.duration, first.snr) == ("7", 2.0, 12.5)
    assert first.audio_filepath == str(Path(path).parent / "x/1.wav")


def test_files_of_one_name_are_called_by_their_paths(write):
    rows = [{"audio_filepath": f"{folder}/1.wav", "text": folder} for folder in ("x", "y")]
    assert contents(read_texts(write("a.jsonl", rows))) == [("x/1", "x"), ("y/1", "y")]


def test_results_of_transcribe_have_words_with_times(write):
    word = {"word": "a", "start": 0.5, "end": 1.0, "confidence": 0.9}
    rows = [{"id": "u1", "text": "a", "words": [word]}, {"id": "u2", "error": "u2.wav: empty"}]
    lines = read_texts(write("a.jsonl", rows), hypotheses=True).lines
    assert lines[0].words == (("a", 0.5, 1.0, 0.9),)
    assert lines[1].text is None
    odd = read_texts(write("b.jsonl", [{"id": "u1", "text": "a", "words": ["a"]}]), hypotheses=True)
    assert odd.lines[0].words == ()


def test_txt_is_paired_by_line_and_empty_lines_are_texts(write):
    texts = read_texts(write("a.txt", "a b\n\nc\n"))
    assert (texts.numbered, contents(texts)) == (True, [("1", "a b"), ("2", ""), ("3", "c")])
    test_set = pair(texts, read_texts(write("b.txt", "a\n\n\n"), hypotheses=True))
    assert [line.text for line in test_set.hypotheses] == ["a", "", ""]
    assert test_set.warnings == ()


@pytest.mark.parametrize(
    ("content", "format"),
    [("a (u1)\nb (u2)\n", "trn"), ('{"id": "u", "text": "a"}\n', "jsonl"), ("a (u1)\nb\n", "txt"), ("a\n", "txt")],
)
def test_content_decides_where_the_name_does_not(write, content, format):
    assert read_texts(write("texts", content)).format == format
    assert read_texts(write("texts.txt", content)).format == format
    assert read_texts(write("texts.trn", "a (u1)\n"), format="txt").lines[0].text == "a (u1)"


def test_missing_and_extra_utterances_are_kept_apart_and_named(write):
    references = read_texts(write("r.trn", "".join(f"a b ({i})\n" for i in range(10))))
    rows = [{"id": str(i), "text": "a"} for i in (11, 5, 3, 10)] + [{"id": "7", "error": "no audio"}]
    test_set = pair(references, read_texts(write("h.jsonl", rows), hypotheses=True))
    assert [line.id for line in test_set.hypotheses] == [str(i) for i in range(10)]
    assert [line.text for line in test_set.hypotheses] == ["a" if i in (3, 5) else None for i in range(10)]
    assert test_set.missing == tuple("01246789")
    assert test_set.extra == ("11", "10")
    first, second = test_set.warnings
    assert "no hypothesis for 8 utterances of 10 (0, 1, 2, 4, 6, ...)" in first
    assert "2 hypotheses without a reference (11, 10): not scored" in second


def test_speakers_come_from_prefixes_files_and_manifests(write):
    texts = read_texts(write("r.trn", "a (s1-1)\nb (s2_1)\nc (x)\n"))
    assert [line.speaker for line in with_speakers(texts, "prefix").lines] == ["s1", "s2", "x"]
    known = with_speakers(texts, write("utt2spk", "s1-1 anna\ns2_1 bert\n"))
    assert [line.speaker for line in known.lines] == ["anna", "bert", ""]
    rows = [{"id": "s1-1", "speaker": "anna", "duration": 3.5, "audio_filepath": "1.wav"}]
    about = with_speakers(texts, write("m.jsonl", rows)).lines
    assert (about[0].speaker, about[0].duration, about[0].text) == ("anna", 3.5, "a")
    assert about[1].duration is None
    manifest = read_texts(write("r.jsonl", [{"audio_filepath": "1.wav", "text": "a", "duration": 2.0, "snr": 9}]))
    [line] = with_speakers(manifest, write("utt2spk", "1 anna\n")).lines
    assert (line.speaker, line.duration, line.snr) == ("anna", 2.0, 9.0)
    assert line.audio_filepath.endswith("1.wav")


BAD = [
    ("a.trn", "a b\n", "a.trn:1: no utterance id: a line of a trn file ends in (id)"),
    ("a.trn", "a (u1)\nb {c / d} (u2)\n", None),
    ("a.trn", "a (u1)\nb { c / d } (u2)\n", "a.trn:2: '{' marks alternatives in trn"),
    ("a.trn", "a @ (u1)\n", "a.trn:1: '@' marks an empty alternative"),
    ("a.trn", "a (u1)\nb (u1)\n", "the id 'u1' occurs twice"),
    ("a.trn", ";; nothing\n", "no texts in it"),
    ("a.txt", "", "no texts in it"),
    ("a.trn", b"\xff\xfea\0", "not UTF-8 but UTF-16"),
    ("a.trn", b"a (u1)\n\xe9 (u2)\n", "a.trn:2: not UTF-8"),
    ("a.jsonl", '{"id": "u1", "text": "a"}\n{"id": \n', "a.jsonl:2: not valid JSON"),
    ("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object"),
    ("a.jsonl", '{"text": "a"}\n', "a.jsonl:1: the row has neither 'id' nor 'audio_filepath'"),
    ("a.jsonl", '{"id": "u1", "txt": "a"}\n', "a.jsonl:1: the row has no 'text' (it has: id, txt)"),
    ("a.jsonl", '{"id": "u1", "text": 5}\n', "a.jsonl:1: 'text' must be a string, found 5"),
    ("a.jsonl", '{"id": [], "text": "a"}\n', "a.jsonl:1: 'id' must be a name"),
    ("a.jsonl", '{"id": "u", "text": "a", "duration": "x"}\n', "a.jsonl:1: 'duration' must be a number"),
    ("a.jsonl", '{"id": "u", "text": "a", "duration": NaN}\n', "a.jsonl:1: 'duration' must be a number"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_malformed_files_are_one_clear_line(write, name, content, message):
    path = write(name, content)
    if message is None:
        read_texts(path)
        return
    with pytest.raises(TextsError) as caught:
        read_texts(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(path)


def test_files_that_do_not_fit_are_one_clear_line(write):
    trn, other = read_texts(write("a.trn", "a (u1)\n")), read_texts(write("b.trn", "a (v1)\n"))
    txt, longer = read_texts(write("a.txt", "a\n")), read_texts(write("b.txt", "a\nb\n"))
    with pytest.raises(TextsError, match=r"none of its ids is in .*'v1' there, 'u1' here"):
        pair(trn, other)
    with pytest.raises(TextsError, match=r"a.txt has no utterance ids and .*a.trn has"):
        pair(trn, txt)
    with pytest.raises(TextsError, match=r"a.txt has 1 lines and .*b.txt 2"):
        pair(txt, longer)
    with pytest.raises(TextsError, match="cannot be read: No such file"):
        read_texts("nowhere.trn")
    with pytest.raises(UsageError, match="unknown format 'stm'"):
        read_texts("a.stm", format="stm")
    with pytest.raises(TextsError, match="utt2spk: none of its ids is in"):
        with_speakers(trn, write("utt2spk", "x y\n"))
    with pytest.raises(TextsError, match="utt2spk:1: expected an id and a speaker, found 3 words"):
        with_speakers(trn, write("utt2spk", "x y z\n"))
