"""Reading ARPA files (plain or gzipped) in pieces of megabytes, with errors by file and line; and writing them."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from asr.files import Input, replacing
from asr.lm import arpa_parse
from asr.lm.automaton import table_size
from asr.lm.tables import OOV_LOG10, SPECIAL_WORDS, UNK, LMError, NGramTable, NGramTables, PackedWords, bounds

_PIECE = 4 << 20  # bytes
_ROWS = 100_000  # written at once
_log = logging.getLogger(__name__)
_MAGIC = {  # first bytes of files that are often mistaken for ARPA files
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

    Also returns the line at which the n-grams of each order begin. A file without <unk> gets one with log10 p = -100,
    as in KenLM. Raises LMError with file and line; duplicate n-grams are only detected when the automaton is built.
    """
    reader = _Reader(path, file)
    return reader.read(), reader.first_line


class _Reader:
    """One pass over a file: `data` is the current piece, made of whole lines, and `at` the position in it."""

    def __init__(self, path: str | Path, file: Input) -> None:
        self.path = path
        self.limit = file.limit  # bytes, which bounds the counts in the header
        self.pieces = _whole_lines(file)
        self.first_line: dict[int, int] = {}  # order -> line of its first n-gram
        self.data = np.zeros(0, np.uint8)
        self.at = 0
        self.lines_before = 0  # lines in the pieces before this one
        self.words: list[str] = []  # of the 1-grams, in the order of the rows
        self.packed = PackedWords(np.zeros(0, np.uint8), np.zeros(1, np.int64))
        self.word_table = np.zeros(0, np.int32)

    def read(self) -> NGramTables:
        counts = self._header()
        tables = []
        for k, count in enumerate(counts, 1):
            self._begin_section(k)
            table = self._reserve(k, count)
            spelled = self._rows(table, highest=k == len(counts))
            if k == 1:
                self._index(spelled)
                order = self._order()
            tables.append(table)
        line = self._next_line("\\end\\")
        if line != b"\\end\\":
            self._fail(f"'{_shown(line)}' where \\end\\ was expected; are the counts in the header right?", -1)
        return _with_special_words_first(self.words, tables, order)

    def _header(self) -> list[int]:
        """The n-gram counts in the \\data\\ section."""
        if not self._more():
            raise LMError(f"{self.path}: empty, not an ARPA file")
        start = self.data[:64].tobytes()
        for magic, kind in _MAGIC.items():
            if start.startswith(magic):
                raise LMError(f"{self.path}: {kind}")
        if start.startswith(b"\xef\xbb\xbf"):
            self.at = 3
        lines = 0
        while (line := self._line()) != b"\\data\\":
            lines += 1
            if line is None or b"\0" in line or lines > 10000:
                raise LMError(f"{self.path}: not an ARPA file: it has no line \\data\\")
        counts: list[int] = []
        while (line := self._line()) is not None and (line or not counts):
            if not line:
                continue
            match = _COUNT.match(line)
            if not match or int(match[1]) != len(counts) + 1:
                self._fail(f"'{_shown(line)}' where 'ngram {len(counts) + 1}=COUNT' was expected", -1)
            counts.append(int(match[2]))
        if not counts:
            self._fail("no 'ngram 1=COUNT' after \\data\\")
        return counts

    def _begin_section(self, k: int) -> None:
        """Read the line `\\k-grams:`."""
        expected = f"\\{k}-grams:"
        line = self._next_line(expected)
        if line != expected.encode():
            after = "the header" if k == 1 else f"\\{k - 1}-grams:"
            reason = f"'{_shown(line)}' where {expected} was expected after {after}"
            if not line.startswith(b"\\"):
                reason += "; are the counts in the header right?"
            self._fail(reason, -1)
        self.first_line[k] = self._line_number()

    def _reserve(self, k: int, count: int) -> NGramTable:
        """An empty table for `count` k-grams, after checking that the file can hold them."""
        if self.limit is not None and count * (2 * k + 2) > self.limit:
            self._fail(f"the header says {count:,} {k}-grams, more than fit in a file of {self.limit:,} bytes", -1)
        try:  # the header of a pipe may promise anything
            return NGramTable(np.empty((count, k), np.int32), np.empty(count, np.float32), np.zeros(count, np.float32))
        except (MemoryError, ValueError):
            self._fail(f"the header says {count:,} {k}-grams, more than fit in memory", -1)

    def _rows(self, table: NGramTable, highest: bool) -> list[bytes]:
        """Fill a table, with rows of the 1-grams as its `words`; return the spellings of 1-grams."""
        count, k = table.words.shape
        spans = np.zeros((2, count if k == 1 else 0), np.int64)
        spelled: list[bytes] = []
        row, stop = 0, arpa_parse.END
        while stop == arpa_parse.END and self._more():
            stop, self.at, row = arpa_parse.parse_rows(
                self.data, self.at, row, highest, table, spans, self.word_table, *self.packed
            )
            if k == 1:
                data = self.data.tobytes()
                starts, ends = spans[:, len(spelled) : row].tolist()
                spelled += [data[start:end] for start, end in zip(starts, ends, strict=True)]
        if stop not in (arpa_parse.END, arpa_parse.SECTION, arpa_parse.BLANK):
            self._fail_parsing(stop, k, count)
        if row < count:
            cut = "" if self._more() else "; is the file cut off?"
            self._fail(f"\\{k}-grams: ends after {row:,} n-grams; the header says {count:,}{cut}")
        return spelled

    def _fail_parsing(self, stop: int, order: int, count: int) -> NoReturn:
        token = _shown(re.split(rb"[ \t\r\n]", self.data[self.at : self.at + 200].tobytes())[0])
        words = f"{order} word{'s' * (order > 1)}"
        reasons = {
            arpa_parse.FULL: f"more {order}-grams than the {count:,} that the header says",
            arpa_parse.BAD_NUMBER: f"'{token}' is not a log-probability",
            arpa_parse.BAD_BACKOFF: f"'{token}' is not a back-off weight: a row is log10 p, {words}, that weight",
            arpa_parse.POSITIVE: f"log10 p = {token} is above 0",
            arpa_parse.TOO_FEW: f"fewer than {words} in a row of the {order}-grams",
            arpa_parse.TOO_MANY: f"'{token}' is one field too many: a row is log10 p, {words}, back-off weight",
            arpa_parse.UNKNOWN_WORD: f"the word '{token}' is not among the 1-grams",
        }
        last = 10 not in self.data[self.at : -1] and not len(next(self.pieces, ""))
        self._fail(reasons[stop] + ("; is the file cut off?" if last else ""))

    def _index(self, spelled: list[bytes]) -> None:
        """Index the words of the 1-grams, to look up the words of longer n-grams."""
        joined = b"\n".join(spelled)
        try:
            self.words = joined.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            row = joined.count(b"\n", 0, error.start)
            self._fail_at(row, "the word is not UTF-8: convert the file to UTF-8")
        block = np.frombuffer(b"".join(spelled), np.uint8).copy()  # writable, which is another type to numba
        self.packed = PackedWords(block, bounds(list(map(len, spelled))))
        self.word_table = np.full(table_size(len(spelled)), -1, np.int32)
        again = int(arpa_parse.fill_word_table(self.word_table, *self.packed))
        if again >= 0:
            self._fail_at(again, f"the word '{self.words[again]}' occurs twice")

    def _order(self) -> np.ndarray:
        """The rows of the 1-grams with <unk>, <s> and </s> first; a missing <unk> is the row after the last.

        <UNK>, <S> and </S> are read as <unk>, <s> and </s> if those are missing, as in files converted to upper case.
        """
        special = []
        for word in SPECIAL_WORDS:
            spelling = word if word in self.words else word.upper()
            if spelling in self.words:
                special.append(self.words.index(spelling))
                if spelling != word and word != SPECIAL_WORDS[UNK]:
                    _log.warning("asr: warning: %s: %s is read as %s", self.path, spelling, word)
            elif word == SPECIAL_WORDS[UNK]:
                special.append(len(self.words))
            else:
                self._fail_at(0, f"no {word} among the 1-grams: train the model on whole sentences")
        rest = np.setdiff1d(np.arange(len(self.words)), special)
        return np.concatenate([special, rest]).astype(np.int64)

    def _more(self) -> bool:
        """Whether there are more bytes; fetches the next piece if this one is used up."""
        while self.at >= len(self.data):
            self.lines_before += int(np.count_nonzero(self.data == 10))
            self.data, self.at = next(self.pieces, np.zeros(0, np.uint8)), 0
            if not len(self.data):
                return False
        return True

    def _line(self) -> bytes | None:
        """The next line, stripped of white space; None at the end of the file."""
        if not self._more():
            return None
        start, step = self.at, 1 << 12
        while not len(ends := np.flatnonzero(self.data[start : start + step] == 10)):
            step *= 16
        self.at = start + int(ends[0]) + 1
        return self.data[start : self.at].tobytes().strip(b" \t\r\n")

    def _next_line(self, expected: str) -> bytes:
        """The next line that is not blank."""
        while (line := self._line()) == b"":
            pass
        if line is None:
            self._fail(f"the file ends before {expected}; is it cut off?")
        return line

    def _line_number(self) -> int:
        return self.lines_before + int(np.count_nonzero(self.data[: self.at] == 10)) + 1

    def _fail(self, reason: str, offset: int = 0) -> NoReturn:
        raise LMError(f"{self.path}:{max(1, self._line_number() + offset)}: {reason}")

    def _fail_at(self, row: int, reason: str) -> NoReturn:
        """Raise an error about a row of the 1-grams."""
        raise LMError(f"{self.path}:{self.first_line[1] + row}: {reason}")


def _with_special_words_first(words: list[str], tables: list[NGramTable], order: np.ndarray) -> NGramTables:
    """The tables of a file with word ids instead of rows: word `i` is that of row order[i] (see `_Reader._order`)."""
    spelled = [*SPECIAL_WORDS, *(words[row] for row in order[3:].tolist())]
    ids = np.arange(len(order), dtype=np.int32)
    logp, backoff = np.append(tables[0].logp, np.float32(OOV_LOG10)), np.append(tables[0].backoff, np.float32(0))
    first, longer = NGramTable(ids[:, None], logp[order], backoff[order]), tables[1:]
    if not np.array_equal(order, ids):
        id_of_row = np.empty(len(words) + 1, np.int32)
        id_of_row[order] = ids
        longer = [table._replace(words=id_of_row[table.words]) for table in longer]
    return NGramTables(spelled, [first, *longer])


def _whole_lines(file: BinaryIO) -> Iterator[np.ndarray]:
    """The file in pieces that end with a newline, which is added to the last line if missing."""
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


def _shown(text: bytes) -> str:
    shown = text.decode("utf-8", "backslashreplace")
    return shown if len(shown) <= 60 else shown[:57] + "..."


def write_arpa(path: str | Path, model: NGramTables) -> None:
    """Write a model atomically, with gzip for .gz; numbers read back exactly. Raises LMError."""
    with replacing(path, LMError) as partial, partial.open("wb") as raw:
        if Path(path).suffix == ".gz":
            # without name and time, so that the same model gives the same file
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                packed.writelines(_lines(model))
        else:
            raw.writelines(_lines(model))


def _lines(model: NGramTables) -> Iterator[bytes]:
    """The file in pieces of many lines."""
    yield b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % item for item in enumerate(model.counts, 1))
    for k, table in enumerate(model.tables, 1):
        yield b"\n\\%d-grams:\n" % k
        for start in range(0, len(table.logp), _ROWS):
            part = slice(start, start + _ROWS)
            spelled = [[model.words[i] for i in column] for column in table.words[part].T.tolist()]
            columns = [_shortest(table.logp[part]), [" ".join(row) for row in zip(*spelled, strict=True)]]
            if k < model.order:
                columns.append(_shortest(table.backoff[part]))
            yield "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)).encode("utf-8")
    yield b"\n\\end\\\n"


def _shortest(values: np.ndarray) -> list[str]:
    """The shortest decimals that read back as the same float32; never "-0", which has a special meaning in KenLM."""
    distinct, which = np.unique(values, return_inverse=True)
    shown = [np.format_float_positional(value, trim="-") if value else "0" for value in distinct]
    return [shown[i] for i in which.tolist()]
