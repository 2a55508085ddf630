"""The binary form: the same model, refused when it is damaged, cut off, newer or something else."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lm_oracles import EXAMPLES

from asr.lm.files import MAGIC
from asr.lm.ngram import NGramLM
from asr.lm.tables import LMError


@pytest.fixture
def source() -> NGramLM:
    return NGramLM.read(EXAMPLES / "trigram.arpa.gz")


@pytest.fixture
def binary(source: NGramLM, tmp_path: Path) -> Path:
    path = tmp_path / "x.lm"
    source.write_binary(path)
    return path


def test_the_same_model_comes_back(source: NGramLM, binary: Path) -> None:
    lm = NGramLM.read(binary)
    assert lm.binary and not source.binary
    assert (lm.words, lm.counts, lm.order, lm.begin_state) == (
        source.words,
        source.counts,
        source.order,
        source.begin_state,
    )
    for ours, theirs in zip((*source.arrays, source.state_length), (*lm.arrays, lm.state_length), strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert theirs.flags.writeable and theirs.ctypes.data % 8 == 0  # compiled code is not compiled for it again
    assert lm.score("the of xyz and") == source.score("the of xyz and")
    NGramLM.read(binary, verify=True)


def test_writing_again_gives_the_same_bytes(binary: Path, tmp_path: Path) -> None:
    NGramLM.read(binary).write_binary(tmp_path / "y.lm")
    assert (tmp_path / "y.lm").read_bytes() == binary.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.lm", "y.lm"]


def test_an_open_model_survives_its_file(binary: Path) -> None:
    lm = NGramLM.read(binary)
    before = lm.score("the of and")
    lm.arrays.unigram["logp"] = 0  # private pages: the file stays as it is
    NGramLM.read(binary, verify=True)
    assert NGramLM.read(binary).score("the of and") == before


def test_damaged_contents_are_found_when_asked_for(binary: Path) -> None:
    data = bytearray(binary.read_bytes())
    data[-3] ^= 1
    binary.write_bytes(data)
    with pytest.raises(LMError, match=r"x\.lm: the contents are damaged \(word_block\): convert or fetch"):
        NGramLM.read(binary, verify=True)


@pytest.mark.parametrize("cut", [8, 15, 400, -1])
def test_cut_off_files_are_refused(binary: Path, cut: int) -> None:
    binary.write_bytes(binary.read_bytes()[:cut])
    with pytest.raises(LMError, match=r"x\.lm: .*(damaged|cut off|bytes, but).*: convert or fetch"):
        NGramLM.read(binary)


def test_a_damaged_header_is_refused(binary: Path) -> None:
    data = bytearray(binary.read_bytes())
    data[60] ^= 1
    binary.write_bytes(data)
    with pytest.raises(LMError, match="the header is damaged"):
        NGramLM.read(binary)


@pytest.mark.parametrize(("version", "message"), [(3, "newer version 3.*upgrade asr"), (1, "older version 1")])
def test_other_versions_are_refused(binary: Path, version: int, message: str) -> None:
    data = bytearray(binary.read_bytes())
    data[8:12] = struct.pack("<I", version)
    binary.write_bytes(data)
    with pytest.raises(LMError, match=message):
        NGramLM.read(binary)


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "x.asr"
    other.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(LMError, match="not an ARPA file"):
        NGramLM.read(other)
    assert len(MAGIC) == 8


def test_opening_a_binary_does_not_read_words(binary: Path) -> None:
    code = (
        "import sys; from asr.lm.ngram import NGramLM; lm = NGramLM.read(sys.argv[1]);"
        "assert 'words' not in vars(lm) and 'index' not in vars(lm); print(lm.order)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(binary)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"
