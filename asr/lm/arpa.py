"""Reading ARPA files, plain or gzip, in pieces of a few megabytes; what is wrong is told with file and line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from asr.files import Input
from asr.lm import arpa_parse
from asr.lm.automaton import table_size
from asr.lm.tables import OOV_LOG10, SPECIAL_WORDS, UNK, LMError, NGramTable, NGramTables, WordList

_PIECE = 4 << 20
_log = logging.getLogger(__name__)
_KINDS = {  # first bytes of files that people hand over instead
    b"mmap lm http://kheafield.com/code": "a KenLM binary: give the ARPA file it was built from",
    b"BZh": "compressed with bzip2: unpack it, or compress it with gzip",
    b"\xfd7zXZ\x00": "compressed with xz: unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, or compress it with gzip",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)$")


def read_arpa(path: str | Path, file: Input) -> tuple[NGramTables, dict[int, int]]:
    """The n-grams of an ARPA file (Doug Paul's format, as SRILM and KenLM write it) opened by `asr.files`.

    With them comes the line at which the n-grams of each order begin. A file without <unk> gets one with log10
    p = -100, as in KenLM. Raises LMError with file and line; an n-gram that stands there twice is noticed when the
    automaton is built.
    """
    reader = _Reader(path, file)
    return reader.read(), reader.first_line


class _Reader:
    """One pass over a file: `data` is the piece at hand (whole lines), `at` the position in it."""

    def __init__(self, path: str | Path, file: Input) -> None:
        self.path = path
        self.limit = file.limit  # to what the counts in the header may promise
        self.pieces = _whole_lines(file)
        self.first_line: dict[int, int] = {}  # of the rows of an order
        self.data = np.zeros(0, np.uint8)
        self.at = 0
        self.lines_before = 0  # in the pieces that are gone

    def read(self) -> NGramTables:
        counts = self._header()
        tables = []
        vocabulary: _Vocabulary | None = None
        for k, count in enumerate(counts, 1):
            self._section(k)
            highest = k == len(counts)
            logp, backoff = self._reserve(k, count)
            if vocabulary is None:
                rows, words = self._unigrams(logp, backoff, highest)
            else:
                ids = np.empty((count, k), np.int32)
                rows = self._ngrams(logp, backoff, ids, vocabulary, highest)
            if rows < count:
                cut = "" if self._more() else "; is the file cut off?"
                self._fail(f"\\{k}-grams: ends after {rows:,} n-grams; the header says {count:,}{cut}")
            if vocabulary is None:
                vocabulary = _Vocabulary(words, self.path, self.first_line[1])
                logp, backoff = vocabulary.arrange(logp, OOV_LOG10), vocabulary.arrange(backoff, 0.0)
                ids = np.arange(len(logp), dtype=np.int32)[:, None]
            else:
                ids = vocabulary.ids_of_rows(ids)
            tables.append(NGramTable(ids, logp, backoff))
        self._end()
        assert vocabulary is not None
        return NGramTables(vocabulary.words, tables)

    def _header(self) -> list[int]:
        """The counts of \\data\\."""
        if not self._more():
            raise LMError(f"{self.path}: empty, not an ARPA file")
        start = self.data[:64].tobytes()
        for magic, kind in _KINDS.items():
            if start.startswith(magic):
                raise LMError(f"{self.path}: {kind}")
        if start.startswith(b"\xef\xbb\xbf"):
            self.at = 3
        seen = 0
        while (line := self._line()) != b"\\data\\":
            seen += 1
            if line is None or b"\0" in line or seen > 10000:
                raise LMError(f"{self.path}: not an ARPA file: it has no line \\data\\")
        counts: list[int] = []
        while (line := self._line()) is not None:
            if not line:
                if counts:
                    break
                continue
            match = _COUNT.match(line)
            if not match or int(match[1]) != len(counts) + 1:
                self._fail(f"'{_shown(line)}' where 'ngram {len(counts) + 1}=COUNT' was expected", -1)
            counts.append(int(match[2]))
        if not counts:
            self._fail("no 'ngram 1=COUNT' after \\data\\")
        return counts

    def _section(self, k: int) -> None:
        """Go behind the line `\\k-grams:`."""
        while (line := self._line()) == b"":
            pass
        expected = f"\\{k}-grams:"
        if line is None:
            self._fail(f"the file ends before {expected}; is it cut off?")
        if line != expected.encode():
            after = "the header" if k == 1 else f"\\{k - 1}-grams:"
            reason = f"'{_shown(line)}' where {expected} was expected after {after}"
            if not line.startswith(b"\\"):
                reason += "; are the counts in the header right?"
            self._fail(reason, -1)
        self.first_line[k] = self._line_number()

    def _reserve(self, k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for the numbers of that many k-grams, unless the file cannot hold them."""
        if self.limit is not None and count * (2 * k + 2) > self.limit:
            self._fail(f"the header says {count:,} {k}-grams, more than fit into a file of {self.limit:,} bytes", -1)
        try:
            np.empty((count, k), np.int32)  # a pipe has no size: what memory cannot hold is refused
            return np.empty(count, np.float32), np.zeros(count, np.float32)
        except (MemoryError, ValueError):
            self._fail(f"the header says {count:,} {k}-grams, more than fit into memory", -1)

    def _unigrams(self, logp: np.ndarray, backoff: np.ndarray, highest: bool) -> tuple[int, WordList]:
        """The number of rows read, and their words."""
        starts, ends = np.zeros(len(logp), np.int64), np.zeros(len(logp), np.int64)
        blocks = [np.zeros(0, np.uint8)]
        row, stop = 0, arpa_parse.END
        while stop == arpa_parse.END and self._more():
            before = row
            stop, self.at, row = arpa_parse.parse_unigrams(
                self.data, self.at, row, highest, logp, backoff, starts, ends
            )
            blocks.append(arpa_parse.pieces(self.data, starts[before:row], ends[before:row]))
        self._check(stop, 1, len(logp))
        return row, WordList(np.concatenate(blocks), _bounds((ends - starts)[:row]))

    def _ngrams(
        self, logp: np.ndarray, backoff: np.ndarray, ids: np.ndarray, vocabulary: _Vocabulary, highest: bool
    ) -> int:
        row, stop = 0, arpa_parse.END
        block, offsets = vocabulary.in_file.block, vocabulary.in_file.offsets
        while stop == arpa_parse.END and self._more():
            stop, self.at, row = arpa_parse.parse_ngrams(
                self.data, self.at, row, highest, logp, backoff, ids, vocabulary.table, block, offsets
            )
        self._check(stop, ids.shape[1], len(logp))
        return row

    def _check(self, stop: int, order: int, count: int) -> None:
        """Raise the error that parsing stopped for, if it was one."""
        if stop in (arpa_parse.END, arpa_parse.SECTION, arpa_parse.BLANK):
            return
        token = _shown(re.split(rb"[ \t\r\n]", self.data[self.at : self.at + 200].tobytes())[0])
        words = f"{order} word{'s' * (order > 1)}"
        reasons = {
            arpa_parse.FULL: f"more {order}-grams than the {count:,} that the header says",
            arpa_parse.BAD_NUMBER: f"'{token}' is no log-probability",
            arpa_parse.BAD_BACKOFF: f"'{token}' is no back-off weight: expected are log10 p, {words}, and that weight",
            arpa_parse.POSITIVE: f"log10 p = {token} is above 0",
            arpa_parse.TOO_FEW: f"less than {words} in a row of the {order}-grams",
            arpa_parse.TOO_MANY: f"'{token}' is too much: expected are log10 p, {words}, and a back-off weight",
            arpa_parse.UNKNOWN_WORD: f"the word '{token}' is not among the 1-grams",
        }
        last = 10 not in self.data[self.at : -1] and not len(next(self.pieces, ""))
        self._fail(reasons[stop] + ("; is the file cut off?" if last else ""))

    def _end(self) -> None:
        while (line := self._line()) == b"":
            pass
        if line is None:
            self._fail("the file ends before \\end\\; is it cut off?")
        if line != b"\\end\\":
            self._fail(f"'{_shown(line)}' where \\end\\ was expected; are the counts in the header right?", -1)

    def _more(self) -> bool:
        """Whether there is something at the position, after fetching the next piece where the last one is used up."""
        while self.at >= len(self.data):
            self.lines_before += int(np.count_nonzero(self.data == 10))
            self.data, self.at = next(self.pieces, np.zeros(0, np.uint8)), 0
            if not len(self.data):
                return False
        return True

    def _line(self) -> bytes | None:
        """The next line without white space at its ends, None at the end of the file."""
        if not self._more():
            return None
        start, step = self.at, 1 << 12
        while True:
            ends = np.flatnonzero(self.data[start : start + step] == 10)
            if len(ends):
                break
            step *= 16
        self.at = start + int(ends[0]) + 1
        return self.data[start : self.at].tobytes().strip(b" \t\r\n")

    def _line_number(self) -> int:
        return self.lines_before + int(np.count_nonzero(self.data[: self.at] == 10)) + 1

    def _fail(self, reason: str, offset: int = 0) -> NoReturn:
        raise LMError(f"{self.path}:{max(1, self._line_number() + offset)}: {reason}")


class _Vocabulary:
    """The words of the 1-grams: `in_file` in the order of the rows, `words` with <unk>, <s> and </s> in front.

    `table` finds rows by spelling. <UNK>, <S> and </S> are read as <unk>, <s> and </s> where those are missing, as in
    files that were put in capitals.
    """

    def __init__(self, in_file: WordList, path: str | Path, first_line: int) -> None:
        self.in_file = in_file
        block, offsets = in_file.block, in_file.offsets
        try:
            block.tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            row = int(np.searchsorted(offsets, error.start, side="right")) - 1
            raise LMError(f"{path}:{first_line + row}: the word is not UTF-8: convert the file to UTF-8") from None
        self.table = np.full(table_size(len(in_file)), -1, np.int32)
        again = int(arpa_parse.fill_word_table(self.table, block, offsets))
        if again >= 0:
            raise LMError(f"{path}:{first_line + again}: the word '{in_file[again]}' stands there twice")
        unk, bos, eos = (self._special_row(word, path) for word in SPECIAL_WORDS)
        for word, row in (("<s>", bos), ("</s>", eos)):
            if row < 0:
                raise LMError(f"{path}:{first_line}: no {word} among the 1-grams: train the model on whole sentences")
        n = len(in_file)
        special = [unk if unk >= 0 else n, bos, eos]  # row n is the <unk> that the file lacks
        self.rows = np.concatenate([special, np.setdiff1d(np.arange(n), special)]).astype(np.int64)
        self.id_of_row = np.empty(n + 1, np.int32)
        self.id_of_row[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        starts, ends = np.append(offsets[:-1], 0)[self.rows], np.append(offsets[1:], 0)[self.rows]
        names = WordList.of(SPECIAL_WORDS)
        starts[:3], ends[:3] = len(block) + names.offsets[:-1], len(block) + names.offsets[1:]
        spelled = arpa_parse.pieces(np.concatenate([block, names.block]), starts, ends)
        self.words = WordList(spelled, _bounds(ends - starts))

    def _row(self, word: str) -> int:
        spelled = np.frombuffer(word.encode(), np.uint8)
        return int(arpa_parse.find_word(spelled, 0, len(spelled), self.table, self.in_file.block, self.in_file.offsets))

    def _special_row(self, word: str, path: str | Path) -> int:
        row = self._row(word)
        if row < 0:
            row = self._row(word.upper())
            if row >= 0 and word != SPECIAL_WORDS[UNK]:
                _log.warning("asr: warning: %s: %s is read as %s", path, word.upper(), word)
        return row

    def arrange(self, values: np.ndarray, of_unknown: float) -> np.ndarray:
        """Numbers of the rows in the order of the ids; `of_unknown` for the <unk> that the file lacks."""
        return np.append(values, np.float32(of_unknown))[self.rows]

    def ids_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Word ids in place of the rows of the 1-grams."""
        if np.array_equal(self.rows, np.arange(len(self.rows))):
            return rows
        return self.id_of_row[rows]


def _whole_lines(file: BinaryIO) -> Iterator[np.ndarray]:
    """The file in pieces that end with a newline (one is added to the last line where it is missing)."""
    rest = b""
    while piece := file.read(_PIECE):
        end = piece.rfind(b"\n") + 1
        if end:
            yield np.frombuffer(rest + piece[:end], np.uint8)
            rest = piece[end:]
        else:
            rest += piece
    if rest:
        yield np.frombuffer(rest + b"\n", np.uint8)


def _bounds(lengths: np.ndarray) -> np.ndarray:
    bounds = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def _shown(text: bytes) -> str:
    shown = text.decode("utf-8", "backslashreplace")
    return shown if len(shown) <= 60 else shown[:57] + "..."
