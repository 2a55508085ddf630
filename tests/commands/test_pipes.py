"""Every text or audio input may be a pipe: nothing is opened twice, to peek at it or to read it again."""

from __future__ import annotations

import gzip
import json

import pytest

from asr.__main__ import main
from asr.decoding.make import DecodingConfig, _for_kenlm, make_decoder
from asr.files import write_text
from asr.lm.ngram import NGramLM
from asr.text.tokenizer import CharTokenizer, load_tokenizer

LABELS = ["", " ", *"abcde"]
SENTENCES = [f"{'abcde'[i % 5]}{'abcde'[i % 4]}{'abcde'[i % 3]} cab bad bed" for i in range(1500)]  # above 8 KB


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder with a text and the models of it: `x.txt`, `x.arpa`, `x.lm`."""
    folder = tmp_path_factory.mktemp("lm")
    write_text(folder / "x.txt", "".join(f"{sentence}\n" for sentence in SENTENCES))
    for name in ("x.arpa", "x.lm"):
        assert main(["lm", "train", str(folder / "x.txt"), "-o", str(folder / name), "--order", "2"]) == 0
    return folder


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_training_sees_every_sentence_of_a_pipe(pack, texts, piped, tmp_path):
    pipe = piped(pack((texts / "x.txt").read_bytes()))
    assert main(["lm", "train", str(pipe), "-o", str(tmp_path / "x.arpa"), "--order", "2"]) == 0
    assert (tmp_path / "x.arpa").read_bytes() == (texts / "x.arpa").read_bytes()


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_sentences_end_at_any_line_end(end, texts, piped, tmp_path):
    pipe = piped(b"\xef\xbb\xbf" + end.join(SENTENCES).encode())
    assert main(["lm", "train", str(pipe), "-o", str(tmp_path / "x.arpa"), "--order", "2"]) == 0
    assert (tmp_path / "x.arpa").read_bytes() == (texts / "x.arpa").read_bytes()


@pytest.mark.parametrize(
    ("name", "pack"), [("x.arpa", bytes), ("x.arpa", gzip.compress), ("x.lm", bytes), ("x.lm", gzip.compress)]
)
def test_a_language_model_through_a_pipe(name, pack, texts, piped, capsys):
    lm, file = NGramLM.read(piped(pack((texts / name).read_bytes())), verify=True), NGramLM.read(texts / name)
    assert (lm.counts, lm.binary, lm.tuned) == (file.counts, name == "x.lm", None)
    assert lm.words == file.words and lm.score("cab bad xyz") == file.score("cab bad xyz")
    assert main(["lm", "info", str(piped(pack((texts / name).read_bytes()))), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["bytes"], values["ngrams"]) == (None, list(file.counts))


def test_a_language_model_is_converted_and_measured_through_pipes(texts, piped, tmp_path, capsys):
    content = (texts / "x.lm").read_bytes()
    assert main(["lm", "convert", str(piped(content)), str(tmp_path / "y.lm")]) == 0
    assert NGramLM.read(tmp_path / "y.lm").counts == NGramLM.read(texts / "x.lm").counts
    capsys.readouterr()
    assert main(["lm", "perplexity", str(piped(content)), str(piped(b"cab bad\n"))]) == 0
    assert "tokens (words and </s>)             3\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ngram 1=", b"ngram 1=9999999999999", "more than fit in memory"),
        (b"ngram 2=", b"ngram 2=99999999999999999999", "more than fit in memory"),
        (b"\\2-grams:", b"", "where \\2-grams: was expected"),
        (b"\\data\\", b"", "no line \\data\\"),
    ],
)
def test_a_bad_arpa_in_a_pipe_is_one_line(old, new, message, texts, piped, capsys):
    pipe = piped((texts / "x.arpa").read_bytes().replace(old, new))
    assert main(["lm", "info", str(pipe)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"asr: error: {pipe}") and message in line


def test_everything_a_decoder_is_told_comes_through_pipes(texts, piped):
    """The language model, the words and the hotwords, of which the words were read twice."""
    words = b"\xef\xbb\xbfcab\rbad\r"
    config = DecodingConfig(
        lm=str(piped((texts / "x.lm").read_bytes())), lexicon=str(piped(words)), hotwords=str(piped(b"bed\t3\r\ncab\n"))
    )
    search = make_decoder(config, CharTokenizer(LABELS), 0.04)
    assert sorted(search.lexicon.words) == ["bad", "bed", "cab"]
    with _for_kenlm(config.lm, search.lm) as path:  # KenLM opens a file by itself, and the pipe is empty by now
        assert NGramLM.read(path).counts == search.lm.counts


@pytest.mark.parametrize("option", ["--lexicon", "--hotwords"])
def test_utf_16_is_told_in_one_line(option, piped, tiny_model, write_audio, tmp_path, capsys):
    pipe = piped("cab\n".encode("utf-16"))
    assert main(["transcribe", str(write_audio(tmp_path / "a.wav")), "-m", str(tiny_model), option, str(pipe)]) > 0
    assert capsys.readouterr().err == f"asr: error: {pipe}: not UTF-8 but UTF-16: save the file as UTF-8\n"


def test_audio_and_text_to_align_through_pipes(piped, tiny_model, write_audio, tmp_path, capsys):
    audio = write_audio(tmp_path / "a.wav", 1.0)
    assert main(["align", str(audio), "a b", "-m", str(tiny_model), "-f", "ctm"]) == 0
    expected = [line.split()[1:] for line in capsys.readouterr().out.splitlines()]
    pipe, text = piped(audio.read_bytes()), piped(b"a\rb\r")
    assert main(["align", str(pipe), str(text), "-m", str(tiny_model), "-f", "ctm"]) == 0
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == expected


def test_a_channel_of_a_pipe_gets_its_file(piped, tiny_model, write_audio, tmp_path, capsys):
    audio = write_audio(tmp_path / "a.wav", 0.5)
    greedy = ["-m", str(tiny_model), "--decoder", "greedy"]
    assert main(["transcribe", str(audio), *greedy]) == 0
    text = capsys.readouterr().out
    pipe = piped(audio.read_bytes())
    assert main(["transcribe", str(pipe), *greedy, "--channel", "each", "-o", str(tmp_path / "out")]) == 0
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [text]


def test_a_tokenizer_and_a_recipe_through_pipes(piped, tmp_path, capsys):
    CharTokenizer(LABELS).save(tmp_path / "tokenizer.json")
    assert load_tokenizer(piped((tmp_path / "tokenizer.json").read_bytes())).labels == LABELS
    recipe = piped(b"model: {layers: 0.5}\r")
    assert main(["train", str(recipe)]) == 2
    assert "model.layers" in capsys.readouterr().err
    manifest = tmp_path / "m.jsonl"
    assert main(["data", "check", "--config", str(piped(f"data: {{train: {manifest}}}\n".encode()))]) == 1
    assert f"{manifest}: cannot" in capsys.readouterr().err


def test_what_needs_a_file_names_the_pipe_and_what_to_do(piped, tiny_model, capsys):
    """Several processes read a recipe; a model is read in pieces; weights are stored beside a language model."""
    recipe, model, lm = piped(b"trainer: {devices: 2}"), piped(tiny_model.read_bytes()[:60000]), piped(b"\\data\\\n")
    for arguments, status in (
        (["train", str(recipe)], 2),
        (["info", str(model)], 1),
        (["lm", "tune", "m.jsonl", "--lm", str(lm), "-m", "x.asr"], 2),
    ):
        assert main(arguments) == status
        [line] = capsys.readouterr().err.splitlines()
        assert "a pipe" in line and "save it as a file" in line
