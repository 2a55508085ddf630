"""`asr explain`: the page, the picture, what is printed, and what goes wrong."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

import asr
from asr.__main__ import main


@pytest.fixture
def run(tiny_model, capsys):
    def call(*arguments):
        capsys.readouterr()
        status = main(["explain", *map(str, arguments), "-m", str(tiny_model)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def talk(write_audio, tmp_path):
    return write_audio(tmp_path / "<b>talk $x_$ 字 @TEXT@.wav", 1.5)


class Page(HTMLParser):
    """Elements with their attributes, and whether tags close in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_page_in_one_piece(run, talk, tmp_path, tiny_model):
    status, out, err = run(talk, "--word", "1", "-o", tmp_path / "page.html")
    assert (status, err.count("\n")) == (0, 1) and "explanation written to" in err
    text = asr.load(tiny_model, decoder="greedy").transcribe(talk).text
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert rows["text"] == text and rows["word"].startswith(text.split()[0] + " (")
    assert {"score", "without the most salient tenth", "without a random tenth"} <= set(rows)
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(content)
    assert not page.open
    own = re.sub(r"data:[\w/;]+,[\w+/=]*", "", content)
    assert not re.search(r"//\w|@import|url\(", own)  # nothing from elsewhere
    assert all(a["src"].startswith("data:") for tag in ("img", "audio") for a in page.all(tag))
    headings = re.findall(r"<h2>(.*?)</h2>", content)
    pictures = [f"Saliency of &#x27;{text.split()[0]}&#x27;", "Gates of layer 1, forward", "Gates of layer 1, backward"]
    assert {"Words", "Waveform", "Spectrogram", "Posteriorgram", "Alignment", *pictures} <= set(headings)
    assert len(page.all("img")) == 8 and all(len(image["alt"]) > 20 for image in page.all("img"))
    assert len(page.all("button")) == len(text.split())
    assert "&lt;b&gt;talk $x_$ 字 @TEXT@.wav" in content  # a name is text, and no place to fill


def test_pictures_of_a_known_text(run, talk, tmp_path):
    options = ("--text", "ab c", "--word", "C", "--start", "0.2", "--duration", "1")
    status, out, _ = run(talk, *options, "-o", tmp_path / "a.png")
    assert status == 0 and "word" in out and "\nword                            c (" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["TALK", "-o", "a.pdf"], 2, "-o a.pdf: the name must end in .html"),
        (["TALK", "-o", "a.png", "--layer", "9"], 2, "--layer 9: the encoder of this model has layers 1 to 1"),
        (["TALK", "-o", "a.png", "--word", "zebra"], 2, "--word zebra: not in the text"),
        (["TALK", "-o", "a.png", "--channel", "each"], 2, "--channel must be mix or a number"),
        (["TALK", "-o", "a.png", "--duration", "0"], 2, "--duration must be positive"),
        (["TALK", "-o", "a.png", "--start", "-1"], 2, "--start must be 0 or more"),
        (["TALK", "-o", "a.png", "--start", "5"], 1, "talk"),
        (["TALK", "-o", "a.png", "--text", "a b c d e " * 20], 1, "needs at least"),
        (["TALK", "-o", "a.png", "--text", "xyz"], 1, "not in the alphabet"),
        (["TALK", "-o", "silence.wav/a.png", "--text", "a"], 1, "silence.wav"),
        (["SILENCE", "-o", "a.png"], 1, "silence: every sample has the same value"),
        (["gone.wav", "-o", "a.png"], 1, "gone.wav"),
    ],
)
def test_what_goes_wrong_is_one_line(run, talk, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    soundfile.write("silence.wav", np.zeros(16000), 16000)
    names = {"TALK": talk.name, "SILENCE": "silence.wav"}
    found, out, err = run(*[names.get(argument, argument) for argument in arguments])
    assert (found, out) == (status, "")
    assert err.startswith("asr: error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_a_classifier_is_refused(talk, tiny_classifier, capsys):
    assert main(["explain", str(talk), "-m", str(tiny_classifier), "-o", "a.png"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("asr: error: ") and err.count("\n") == 1 and "classif" in err
