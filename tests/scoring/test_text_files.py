"""Reading trn, JSONL and txt, pairing by id: nothing dropped in silence, every malformed input one clear line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from asr.scoring.alternatives import Wordings
from asr.scoring.pairing import TextFileError, pair
from asr.scoring.text_files import read_texts, with_speakers
from asr.types import UsageError, Word


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
    assert lines[0].words == (Word("a", 0.5, 1.0, 0.9),)
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


TEXTS = {"u-11": "hello big world", "u-12": "good night", "u-13": ""}
SRT = (
    "1\n00:00:00,000 --> 00:00:02,000\n<i>hello</i> big\n\n2\n00:00:02,000 --> 00:00:03,500\n"
    "{\\an8}world &amp;\nnight\n"
)
VTT = (
    "WEBVTT - a\n\nNOTE by\nhand\n\nSTYLE\n::cue {}\n\n1\n00:00.000 --> 00:02.000 align:start\n"
    "<v Ann>hello <c>big</c>\n"
)
WHISPER = {"text": " hello big world", "segments": [{"start": 0.0, "text": " hello big world"}], "language": "en"}
READ = [
    ("text", "".join(f"{k} {v}\n" for k, v in TEXTS.items()), "kaldi", TEXTS),
    ("hyp", "".join(f"{k}\t{v}\r" for k, v in TEXTS.items()), "kaldi", TEXTS),
    ("a.csv", "id,text\n" + "".join(f'{k},"{v}"\n' for k, v in TEXTS.items()), "csv", TEXTS),
    ("a", "audio_filepath;sentence\nx/u-11.wav;hello big world\n", "csv", {"u-11": "hello big world"}),
    ("a.tsv", "path\tsentence\nu-11.mp3\thello big world\n", "csv", {"u-11": "hello big world"}),
    ("talk.tsv", "start\tend\ttext\n0\t900\thello\n900\t1900\tbig world\n", "csv", {"talk": "hello big world"}),
    ("a.json", json.dumps([{"id": k, "text": v} for k, v in TEXTS.items()], indent=1), "json", TEXTS),
    ("a.json", json.dumps(TEXTS), "json", TEXTS),
    ("a.json", "".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in TEXTS.items()), "json", TEXTS),
    ("x", json.dumps([{"audio_filepath": f"{k}.wav", "text": v} for k, v in TEXTS.items()]), "json", TEXTS),
    ("talk.json", json.dumps(WHISPER), "json", {"talk": " hello big world"}),
    ("talk.json", json.dumps({"id": "u1", **WHISPER}, indent=2), "json", {"u1": " hello big world"}),
    ("talk.srt", SRT, "srt", {"talk": "hello big world & night"}),
    ("talk", SRT, "srt", {"talk": "hello big world & night"}),
    ("talk.vtt", VTT, "vtt", {"talk": "hello big"}),
    ("a.stm", ";; no\nr 1 s 0.00 2.50 <o,f> hello big world\nr 1 t 2.5 4 \n", "stm",
     {"r-1-0.00": "hello big world", "r-1-2.50": ""}),
    ("a", "r 1 s 0.00 2.50 hello\nr 1 t 0.00 4 good night\n", "stm",
     {"r-1-0.00-s": "hello", "r-1-0.00-t": "good night"}),
    ("a", "r 1 0.10 0.30 hello 0.9\nr 1 0.50 0.30 world 0.9\n", "ctm", {"r": "hello world"}),
    ("a.ctm", "r A 0 1 a\\;b\nr B 0 1 @\nr B 1 1 c* NA\n", "ctm", {"r-A": "a;b", "r-B": "c"}),
    ("a.trn", "a (u1)\rb (u2)\r", "trn", {"u1": "a", "u2": "b"}),
    ("a.trn", "a b;tag \\;\\\\c d* @ (b) e- (u1)\n", "trn", {"u1": "a b ;c d (b) e-"}),
    ("a.txt", "1 2 3 4 5\n6 7 8 9 10 11\n", "txt", {"1": "1 2 3 4 5", "2": "6 7 8 9 10 11"}),
    ("a.txt", "text, start\nid\n", "txt", {"1": "text, start", "2": "id"}),
    ("a.lab", "{braces} are letters\n", "txt", {"1": "{braces} are letters"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "format", "expected"), READ)
@pytest.mark.parametrize("packed", [False, True])
def test_formats_are_known_by_name_or_else_by_shape(write, name, content, format, expected, packed):
    """Kind: anything unknown is read as lines of words, whose ids, times and columns then count as right words."""
    data = gzip.compress(content.encode()) if packed else content.encode()
    texts = read_texts(write(f"{name}.gz" if packed else name, data))
    assert (texts.format, dict(contents(texts))) == (format, expected)


def words_of(test_set):
    return [(line.id, line.text, hypothesis.text) for line, hypothesis in zip(*sides(test_set), strict=True)]


def sides(test_set):
    return test_set.references, test_set.hypotheses


def test_a_kaldi_text_is_paired_by_id_in_any_order(write):
    texts = read_texts(write("text", "spk1-1 a b\nspk1-2 c\nspk2-1 d\n"))
    for name in ("hyp", "hyp.txt"):
        shuffled = read_texts(write(name, "spk2-1 d\nspk1-1 a x\n"), hypotheses=True)
        test_set = pair(texts, shuffled)
        assert words_of(test_set) == [("spk1-1", "a b", "a x"), ("spk1-2", "c", None), ("spk2-1", "d", "d")]
        assert test_set.missing == ("spk1-2",)
    both = [read_texts(write(name, "84-121-0001 a\n84-121-0002 b\n")) for name in ("a.txt", "b.txt")]
    assert words_of(pair(*both)) == [("84-121-0001", "a", "a"), ("84-121-0002", "b", "b")]


def test_lines_that_may_begin_with_ids_are_refused_until_a_flag_decides(write):
    doubtful = [
        ("u1 a\nu2 b\n", "u1 a\nu2 c\n"),
        ("u1 a\nu2 b\n", "u2 b\nu3 c\n"),
        ("ann a\nbob b\n", "bob b\nann c\n"),
        ("s1-1 a\ns1-2 b\n", "a\nb\n"),
        ("a\nb\n", "s1-1 a\ns1-2 b\n"),
    ]
    for ours, theirs in doubtful:
        files = write("r.txt", ours), write("h.txt", theirs)
        with pytest.raises(TextFileError, match="give --format kaldi if they are ids, --format txt if they are words"):
            pair(*map(read_texts, files))
        assert len(pair(*(read_texts(file, format="txt") for file in files)).references) == 2
    kaldi = [read_texts(write(name, text), format="kaldi") for name, text in (("r", "u1 a\nu2\n"), ("h", "u2\nu1 b\n"))]
    assert words_of(pair(*kaldi)) == [("u1", "a", "b"), ("u2", "", "")]
    for ours, theirs in (
        ("the cat\na dog\n", "the cat\na dog\n"),
        ("1 2\n3 4\n", "1 2\n3\n"),
        ("B2 a\n", "B2 b\n"),
        ("94105\n94106\n", "94105\n94107\n"),
    ):
        assert pair(read_texts(write("r.txt", ours)), read_texts(write("h.txt", theirs))).references[0].id == "1"


def test_subtitles_are_one_text_beside_another_and_beside_lines(write):
    srt, other = read_texts(write("a.srt", SRT)), read_texts(write("b.vtt", VTT), hypotheses=True)
    assert words_of(pair(srt, other)) == [("a", "hello big world & night", "hello big")]
    assert words_of(pair(read_texts(write("t.txt", "hello\n\nbig\n")), other)) == [("b", "hello big", "hello big")]
    with pytest.raises(TextFileError, match="none of its ids"):
        pair(read_texts(write("r.trn", "a (u1)\n")), other)


@pytest.mark.parametrize("mark", ["IGNORE_TIME_SEGMENT_IN_SCORING", "ignore_time_segment_in_scoring"])
def test_segments_to_be_ignored_in_either_case(write, mark):
    read = read_texts(write("r.stm", f"r 1 inter_segment_gap 0 2.5 <o,,unknown> {mark}\nr 1 t 2.5 4 <o,f0,male> hi\n"))
    assert [line.text for line in read.lines] == ["hi"] and [line.duration for line in read.ignored] == [2.5]


def test_stm_and_ctm_are_paired_by_recording_channel_and_time(write):
    stm = read_texts(write("r.stm", "r A s 0.0 2.0 <> a b\nr A t 2.0 4.0 c\nr B s 0 4 d\nq A s 0 1 e\n"))
    again = read_texts(write("h.stm", "r A x 2.0 4.0 c\nr A x 0.0 2.0 b\n"), hypotheses=True)
    test_set = pair(stm, again)
    assert [hypothesis.text for hypothesis in test_set.hypotheses] == ["b", "c", None, None]
    assert [line.speaker for line in test_set.references] == ["s", "t", "s", "s"]
    ctm = read_texts(
        write("h.ctm", "r B 1 1 d 0.5\nr A 1.8 0.4 b 0.9\nr A 0.5 0.2 a 0.8\nz A 0 1 z 1\n"), hypotheses=True
    )
    test_set = pair(stm, ctm)
    assert [hypothesis.text for hypothesis in test_set.hypotheses] == ["a", "b", "d", None]
    assert test_set.hypotheses[1].words == (Word("b", 0.0, pytest.approx(0.2), 0.9),)
    assert (test_set.missing, test_set.extra) == (("q-A-0.00",), ("z",))
    reference = read_texts(
        write("r.ctm", "r A 0 1 a\nr B * * <ALT_BEGIN>\nr B 0 1 d\nr B * * <ALT>\nr B * * <ALT_END>\n")
    )
    assert words_of(pair(reference, read_texts(write("g.ctm", "r A 0 1 a\n"))))[0] == ("r-A", "a", "a")
    with pytest.raises(TextFileError, match=r"none of its recordings \(e.g. 'x 1', .* is in .*r.stm \(e.g. 'r A'\)"):
        pair(stm, read_texts(write("x.ctm", "x 1 0.0 1.0 a\n")))


def test_a_choice_in_a_ctm_stays_a_choice_in_the_segments_of_an_stm(write):
    """Kind: markup known in one place and dropped in another. Both of its words counted as spoken."""
    stm = read_texts(write("r.stm", "r 1 s 0.0 1.0 a { b / c } d\nr 1 s 1.0 2.0 e\n"))
    choice = "r 1 * * <ALT_BEGIN>\nr 1 0.3 0.1 c\nr 1 * * <ALT>\nr 1 0.3 0.1 x\nr 1 * * <alt_end>\n"
    ctm = read_texts(write("h.ctm", f"r 1 1.3 0.1 e\nr 1 0.1 0.1 a\n{choice}r 1 0.5 0.1 d\n"))
    paired = pair(stm, ctm)
    assert [line.text for line in paired.hypotheses] == ["a { c / x } d", "e"]
    assert paired.hypotheses[0].wordings == Wordings(("a", (Wordings(("c",)), Wordings(("x",))), "d"))


BAD = [
    ("a.trn", "a b\n", "a.trn:1: no utterance id: a line of a trn file ends in (id)"),
    ("a.trn", "a (u1)\nb { c / d (u2)\n", "a.trn:2: '{' begins a choice of wordings that no '}' ends"),
    ("a.trn", "M^{ME} b (u1)\n", "a.trn:1: '{' inside the word 'M^{ME}'"),
    ("a.trn", "{" * 3000 + "a" + "}" * 3000 + " (u1)\n", "a.trn:1: choices of wordings are nested too deeply"),
    ("a.trn", "a { / } (u1)\n", "a.trn:1: no wording between '{' and '}'"),
    ("a.stm", "r 1 s 0 1 a\nr 1 s 0\n", "a.stm:2: expected 'RECORDING CHANNEL SPEAKER START END TEXT'"),
    ("a.stm", "r 1 s 2.0 1.0 a\n", "a.stm:1: the segment ends (1 s) before it starts (2 s)"),
    ("a.ctm", "r 1 0.1 a\n", "a.ctm:1: expected 'RECORDING CHANNEL START DURATION WORD [CONFIDENCE]'"),
    ("a.ctm", "r 1 * * <ALT_BEGIN>\nr 1 0 1 a\n", "a.ctm: a choice of words in 'r 1' has no <ALT_END>"),
    ("a.ctm", "r 1 * * a\n", "a.ctm:1: the word 'a' has no times"),
    ("a.csv", "u1,hello\n", "no texts in it"),
    ("a.csv", "u1,hello\nu2,a\n", "a.csv: no column for the text (found: u1, hello)"),
    ("a.csv", "name,text\nu1,a\n", "a.csv: no column for the id (found: name, text)"),
    ("a.json", '{"segments": []}', "a.json: no 'text' in it (it has: segments)"),
    ("a.json", '[{"id": "u1", "text": "a"}, 5]', "a.json: item 2: not a JSON object"),
    ("a.json", '[{"id": "u1",\n"text" "a"}]', "a.json: not valid JSON (Expecting ':' delimiter at line 2, column 8)"),
    ("a.TextGrid", "a b\n", "a.TextGrid: textgrid is not supported"),
    ("a.txt", '<?xml version="1.0"?>\n<tt></tt>', "a.txt: a file of this kind is not supported"),
    ("a.txt", "[00:00.000 --> 00:02.000] a b\n", "a.txt: a file of this kind is not supported"),
    ("a.txt", "0.00\t1.25\ta b\n", "a.txt: a file of this kind is not supported"),
    ("a", "SPEAKER r 1 0.50 1.20 <NA> <NA> s <NA> <NA>\n", "a: a file of this kind is not supported"),
    ("a.docx", "PK\x03\x04\0\0", "a.docx: docx is not supported"),
    ("a.ctm", "r 1 0 1 a\0\n", "a.ctm: a file of this kind is not supported"),
    ("a", "#!MLF!#\n", "a: a file of this kind is not supported"),
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
    with pytest.raises(TextFileError) as caught:
        read_texts(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(path)


def test_files_that_do_not_fit_are_one_clear_line(write):
    trn, other = read_texts(write("a.trn", "a (u1)\n")), read_texts(write("b.trn", "a (v1)\n"))
    txt, longer = read_texts(write("a.txt", "a\n")), read_texts(write("b.txt", "a\nb\n"))
    with pytest.raises(TextFileError, match=r"none of its ids \(e.g. 'v1'\) is in .* \(e.g. 'u1'\)"):
        pair(trn, other)
    with pytest.raises(TextFileError, match=r"a.txt has no utterance ids, but .*a.trn \(trn\) has"):
        pair(trn, txt)
    with pytest.raises(TextFileError, match=r"a.txt has 1 lines and .*b.txt has 2"):
        pair(txt, longer)
    with pytest.raises(TextFileError, match="cannot be read: No such file"):
        read_texts("nowhere.trn")
    with pytest.raises(UsageError, match="unknown format 'textgrid'"):
        read_texts("a.stm", format="textgrid")
    with pytest.raises(TextFileError, match="utt2spk: none of its ids is in"):
        with_speakers(trn, write("utt2spk", "x y\n"))
    with pytest.raises(TextFileError, match="utt2spk:1: expected an id and a speaker, found 3 words"):
        with_speakers(trn, write("utt2spk", "x y z\n"))
