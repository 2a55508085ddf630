"""Each output format read back by the rules of its own definition; subtitles of sane length."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.recognition.writers import (
    LINE_WIDTH,
    LINES,
    LONGEST_CUE,
    WRITERS,
    cues,
    flagged,
    json_line,
    json_object,
    parse_formats,
    word_lines,
)
from asr.types import Failure, Hypothesis, Transcript, UsageError, Word


def transcript(words, duration, **fields):
    text = " ".join(word.word for word in words)
    return Transcript(text=text, words=tuple(words), duration=duration, id="talk", audio_filepath="talk.wav", **fields)


HELLO = transcript([Word("hello", 0.24, 0.6, 0.98765), Word("wörld", 0.72, 1.1, 0.5)], 1.5, confidence=0.74)
SILENCE = transcript([], 2.0)


@st.composite
def transcripts(draw):
    """A transcript whose words have increasing times, some after long pauses, some long themselves."""
    time, words = 0.0, []
    for _ in range(draw(st.integers(0, 40))):
        start = time + draw(st.sampled_from([0.0, 0.05, 0.3, 1.5, 30.0]))
        end = start + draw(st.sampled_from([0.04, 0.3, 1.0, 9.0]))
        spelling = draw(st.sampled_from(["a", "it's", "señorita", "<b>&", "x" * 60]))
        words.append(Word(spelling, start, end, draw(st.floats(0, 1))))
        time = end
    return transcript(words, time + draw(st.sampled_from([0.0, 5.0])))


def seconds(clock):
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def blocks(text):
    return [block.split("\n") for block in text.rstrip("\n").split("\n\n")] if text else []


@settings(max_examples=200, deadline=None)
@given(transcripts())
def test_cues_hold_every_word_once_in_order_on_lines_and_for_times_of_sane_length(result):
    found = cues(result.words, result.duration)
    assert " ".join(cue.text for cue in found) == result.text
    words = iter(result.words)
    before = 0.0
    for cue in found:
        inside = [next(words) for _ in cue.text.split()]
        assert before <= cue.start == inside[0].start
        assert inside[-1].end <= cue.end <= result.duration + 1e-9
        before = cue.end
        if len(inside) > 1:
            assert len(textwrap.wrap(cue.text, LINE_WIDTH, break_long_words=False)) <= LINES
            assert inside[-1].end - inside[0].start <= LONGEST_CUE


@settings(max_examples=100, deadline=None)
@given(transcripts())
def test_srt_reads_back(result):
    found = blocks(WRITERS["srt"](result))
    assert [int(block[0]) for block in found] == list(range(1, len(found) + 1))
    shown = " ".join(line for block in found for line in block[2:])
    assert shown == result.text
    times = []
    for block in found:
        match = re.fullmatch(r"(\d\d+:\d\d:\d\d,\d{3}) --> (\d\d+:\d\d:\d\d,\d{3})", block[1])
        times += [seconds(match[1]), seconds(match[2])]
        assert times[-2] < times[-1]
        assert all(len(line) <= LINE_WIDTH or " " not in line for line in block[2:])
    assert times == sorted(times)


def test_vtt_has_its_header_dots_and_escapes():
    result = transcript([Word("<i>", 0.0, 1.0, 1.0), Word("a&b", 3599.9996, 3601.5, 1.0)], 3602.0)
    assert WRITERS["vtt"](result) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n&lt;i&gt;\n\n01:00:00.000 --> 01:00:01.500\na&amp;b\n"
    )


def test_a_short_cue_stays_on_screen_where_there_is_room():
    line = "x" * LINE_WIDTH
    words = [Word("yes", 1.0, 1.04, 1.0), Word(line, 2.5, 2.54, 1.0), Word(line, 2.54, 2.58, 1.0)]
    words.append(Word("no", 2.6, 2.7, 1.0))  # a third line: the next cue
    found = cues(words, 10.0)
    assert [(cue.start, cue.end) for cue in found] == [(1.0, 2.0), (2.5, 2.6), (2.6, 3.6)]


def test_tsv_is_whispers_in_milliseconds():
    assert WRITERS["tsv"](HELLO) == "start\tend\ttext\n240\t1240\thello wörld\n"


def test_ctm_rows_follow_nist():
    rows = WRITERS["ctm"](HELLO).splitlines()
    assert rows == ["talk 1 0.240 0.360 hello 0.988", "talk 1 0.720 0.380 wörld 0.500"]
    second = Transcript("hi", (Word("hi", 0.0, 0.0001, 1.0),), 1.0, id="my talk (1)", channel=1)
    assert WRITERS["ctm"](second) == "my_talk__1_ 2 0.000 0.001 hi 1.000\n"


@settings(max_examples=100, deadline=None)
@given(transcripts())
def test_ctm_words_do_not_overlap(result):
    before = 0
    for row in WRITERS["ctm"](result).splitlines():
        _, _, begin, length, _, confidence = row.split(" ")
        begin_ms, length_ms = round(float(begin) * 1000), round(float(length) * 1000)
        assert before <= begin_ms
        assert length_ms > 0
        assert 0.0 <= float(confidence) <= 1.0
        before = begin_ms + length_ms


def test_trn_ends_with_an_id_that_nist_tools_can_read():
    assert WRITERS["trn"](HELLO) == "hello wörld (talk)\n"
    assert WRITERS["trn"](Transcript("hi", (), 1.0, id="a (b) c", channel=0)) == "hi (a__b__c-1)\n"


def test_json_holds_words_and_counts_no_digit_twice():
    row = json.loads(WRITERS["json"](HELLO))
    assert row == json.loads(WRITERS["jsonl"](HELLO))
    assert row["text"] == "hello wörld"
    assert row["duration"] == 1.5
    assert row["words"][0] == {"word": "hello", "start": 0.24, "end": 0.6, "confidence": 0.9877}
    assert "channel" not in row
    assert "nbest" not in row
    assert "wörld" in WRITERS["jsonl"](HELLO)
    assert WRITERS["jsonl"](HELLO).count("\n") == 1


def test_json_holds_the_nbest_list_channel_and_warnings_where_there_are_any():
    hypotheses = (Hypothesis("a", -1.0, -1.5, 0.5), Hypothesis("b", -2.0, -2.0))
    row = json_object(Transcript("a", (), 1.0, channel=1, nbest=hypotheses, warnings=("truncated",)))
    assert [h["text"] for h in row["nbest"]] == ["a", "b"]
    assert row["nbest"][0]["lm_score"] == 0.5
    assert row["channel"] == 1
    assert row["warnings"] == ["truncated"]


def test_a_failure_is_a_line_with_its_error():
    row = json.loads(json_line(Failure("x", "x.wav", "x.wav: empty")))
    assert row == {"id": "x", "audio_filepath": "x.wav", "error": "x.wav: empty"}


def test_words_for_people_are_one_per_line():
    assert word_lines(HELLO) == "0.240\t0.600\t0.988\thello\n0.720\t1.100\t0.500\twörld\n"


def test_silence_is_valid_in_every_format():
    written = {name: writer(SILENCE) for name, writer in WRITERS.items()}
    assert written["txt"] == "\n"
    assert written["srt"] == written["ctm"] == ""
    assert written["vtt"] == "WEBVTT\n"
    assert written["tsv"] == "start\tend\ttext\n"
    assert written["trn"] == " (talk)\n"
    assert json.loads(written["json"])["words"] == []


def test_format_lists():
    assert parse_formats("txt, SRT,txt") == ("txt", "srt")
    assert parse_formats("all") == tuple(WRITERS)
    with pytest.raises(UsageError, match="did you mean 'srt'"):
        parse_formats("txt,sr")
    with pytest.raises(UsageError, match="no output format"):
        parse_formats(",")


def test_doubtful_words_are_marked_in_txt():
    assert flagged(0.6)(HELLO) == "hello [wörld?]\n"
    assert flagged(0.5)(HELLO) == WRITERS["txt"](HELLO)
    assert flagged(0.6)(SILENCE) == "\n"
    assert flagged(0.6)(Transcript("no times", (), 1.0)) == "no times\n"


def test_full_cues_end_where_the_speaker_draws_breath():
    """Words of 0.4 s without gaps but for one of 0.3 s: the cue that is full ends there, not in mid-phrase."""
    words, at = [], 0.0
    for i in range(30):
        at += 0.3 if i == 13 else 0.0
        words.append(Word(f"w{i}", at, at + 0.4, 1.0))
        at += 0.4
    found = cues(words, at)
    assert found[0].text.split()[-1] == "w12"
    assert found[1].text.split()[0] == "w13"
    assert " ".join(cue.text for cue in found).split() == [word.word for word in words]
    assert all(cue.end - cue.start <= LONGEST_CUE + 1e-9 for cue in found)
