"""Whether a language model goes with a model is said when it is loaded, whatever decodes with it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.decoding.make import DecodingConfig, make_decoder
from asr.lm.estimate import encode_corpus, estimate
from asr.lm.ngram import NGramLM, check_lm
from asr.lm.tables import LMError
from asr.text.tokenizer import CharTokenizer, train_sentencepiece

LABELS = ["", " ", *"abcde"]
WORDS = ["bad cab", "a bed", "dab bee deed ace"]
SPOKEN = {
    "upper": [line.upper() for line in WORDS],
    "foreign": ["grün über süß", "bad öl"],
    "characters": [" ".join(line.replace(" ", "")) for line in WORDS],
    "pieces": ["▁bad ▁c ab", "▁a ▁be d"],
    "fitting": WORDS,
}
REFUSED = {
    "upper": "in UPPER case, but the model is in lower case: convert it with `asr lm convert LM NEW --case lower`",
    "foreign": "is it for another language? Train one on text normalized as for the model",
    "pieces": "which look like SentencePiece pieces: train it on text with spaces between words",
}
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def model(kind: str) -> NGramLM:
    return NGramLM.from_tables(estimate(encode_corpus(SPOKEN[kind]), 2).tables, name=f"{kind}.arpa")


@pytest.fixture
def lm_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        from asr.lm.arpa import write_arpa

        path = tmp_path / f"{kind}.arpa"
        write_arpa(path, estimate(encode_corpus(SPOKEN[kind]), 2).tables)
        return path

    return write


@pytest.mark.parametrize(
    ("command", "decoder", "kind"),
    [
        ("transcribe", "beam", "upper"),
        ("evaluate", "beam", "foreign"),
        ("transcribe", "beam", "pieces"),
        ("transcribe", "flashlight", "upper"),
        ("evaluate", "pyctcdecode", "upper"),
    ],
)
def test_commands_refuse_what_cannot_be_spelled(
    command: str,
    decoder: str,
    kind: str,
    lm_file: Callable[[str], Path],
    tiny_model: Path,
    write_audio: Callable[..., Path],
    tmp_path: Path,
    asr_command: Command,
) -> None:
    audio = write_audio(tmp_path / "a.wav")
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 1.0, "text": "bad"}\n', encoding="utf-8")
    path = lm_file(kind)
    source = audio if command == "transcribe" else manifest
    done = asr_command(command, source, "-m", tiny_model, "--decoder", decoder, "--lm", path)
    assert done.returncode == 1 and done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"asr: error: {path}: the model can spell only ") and REFUSED[kind] in first
    assert not rest


def test_a_model_of_characters_is_warned_of_once(
    lm_file: Callable[[str], Path],
    tiny_model: Path,
    write_audio: Callable[..., Path],
    tmp_path: Path,
    asr_command: Command,
) -> None:
    audio = write_audio(tmp_path / "a.wav")
    path = lm_file("characters")
    done = asr_command("transcribe", audio, "-m", tiny_model, "--lm", path)
    assert done.returncode == 0
    assert done.stderr.count(f"asr: warning: {path}: this looks like a language model of single characters") == 1


@pytest.mark.parametrize("kind", SPOKEN)
def test_characters_and_pieces_of_the_same_text_are_judged_alike(kind: str) -> None:
    pieces = train_sentencepiece([" ".join(WORDS)] * 3, 14)
    for labels in (LABELS, pieces.labels):
        if kind in REFUSED:
            with pytest.raises(LMError) as error:
                check_lm(model(kind), labels)
            assert REFUSED[kind] in str(error.value)
        else:
            assert len(check_lm(model(kind), labels)) == (kind == "characters")


def test_words_are_weighed_by_their_probability() -> None:
    rare = ["ab cab"] * 50 + ["xyz", "zzz", "yyy", "xxx"]
    assert check_lm(NGramLM.from_tables(estimate(encode_corpus(rare), 1).tables), LABELS) == []


def test_a_lexicon_may_spell_the_words_otherwise(lm_file: Callable[[str], Path], tmp_path: Path) -> None:
    lexicon = tmp_path / "words.txt"
    config = DecodingConfig(lm=str(lm_file("upper")), lexicon=str(lexicon))
    tokenizer = CharTokenizer(LABELS)
    lexicon.write_text("BAD b a d\nCAB c a b\nOTHER d e\n", encoding="utf-8")
    assert make_decoder(config, tokenizer, 0.04)
    lexicon.write_text("bad\ncab\n", encoding="utf-8")
    with pytest.raises(LMError, match=r"upper\.arpa: the language model knows none of the 2 words of the lexicon"):
        make_decoder(config, tokenizer, 0.04)
