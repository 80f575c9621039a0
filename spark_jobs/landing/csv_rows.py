"""The records of a CSV file. A quote that is opened and never closed costs one line, not the rest of the file."""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Iterator
from itertools import zip_longest
from typing import TextIO

from infra.errors import DataError
from spark_jobs.landing.rows import Row, Wanted, check_columns
from spark_jobs.landing.text import stripped

csv.field_size_limit(sys.maxsize)
# A quoted value over more lines than this is taken for one whose closing quote is missing.
_MOST_LINES = 1_000
# Files that were written one behind the other have a byte order mark inside; a quote behind it opens a value.
_MARK = "\ufeff"
_COMMA_OF_TEXT = re.compile(r", [^\s,]")


class _Lines:
    """The physical lines of a file. Those of the record that is being read are remembered and can be given back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self._number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if len(self.taken) == _MOST_LINES:
            raise StopIteration
        line = self._again.popleft() if self._again else next(self._stream)
        if not self.taken:
            line = line.lstrip(_MARK)
        self._number += 1
        self.taken.append(line)
        return line

    @property
    def first(self) -> int:
        """Number of the first line of the record."""
        return self._number - len(self.taken) + 1

    def next_record(self) -> None:
        """The record is done."""
        self.taken.clear()

    def give_back_all_but_first(self) -> str:
        """The record ends with its first line, which is returned; the others are to be read again."""
        first, *others = self.taken
        self._again.extendleft(reversed(others))
        self._number -= len(others)
        self.taken = [first]
        return first


class CsvRows:
    """The records of a CSV file below its header, which is the first line that is not empty; empty lines are none.

    Raises:
        DataError: there is no header, or it does not have the table's columns.
    """

    def __init__(self, name: str, stream: TextIO, wanted: Wanted) -> None:
        self._lines = _Lines(stream)
        try:
            self._header = next(filter(None, csv.reader(self._lines, strict=True)), [])
        except csv.Error as error:
            raise DataError(
                f"The header of {name} cannot be read.", where="line 1", why=_reason(error), do="Correct its quotes."
            ) from error
        if not self._header:
            raise DataError(f"{name} has only empty lines.", do="Deliver it again, or take it away.")
        self.columns = tuple(stripped(column) for column in self._header)
        self._id_columns = wanted.ids
        check_columns(name, self.columns, wanted)

    def __iter__(self) -> Iterator[Row]:
        lines, width = self._lines, len(self.columns)
        reader = csv.reader(lines, strict=True)
        while True:
            lines.next_record()
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(_reason(error))
                reader = csv.reader(lines, strict=True)
                continue
            if values == self._header:
                yield self._broken("it repeats the header")._replace(values=())
            elif len(values) == width and not (len(lines.taken) > 1 and _swallowed(lines.taken, values)):
                yield Row(lines.first, values)
            elif any(map(str.strip, values)):  # zeros are no blanks here: a torn upload leaves a line of them
                yield self._broken(_mismatch(len(values), width, len(lines.taken)))
                reader = csv.reader(lines, strict=True)
            elif len(values) > 1:
                yield Row(lines.first, [""] * width)

    def _broken(self, reason: str) -> Row:
        number = self._lines.first
        text = self._lines.give_back_all_but_first().rstrip("\r\n")
        return Row(number, self._ids(text), f"Line {number}: {reason}.", text)

    def _ids(self, text: str) -> list[str]:
        """The ids of a broken line by their place in it: most lines break behind them."""
        places = zip_longest(self.columns, text.split(",")[: len(self.columns)], fillvalue="")
        return [stripped(value).strip('"') if column in self._id_columns else "" for column, value in places]


def _reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return f"a quote that is opened in it is never closed (not in {_MOST_LINES:,} lines or to the end of the file)"
    return "a quoted value in it, or one that is opened in it, goes on after its closing quote"


def _mismatch(values: int, width: int, lines: int) -> str:
    if lines > 1:
        return "a quote that is opened in it is closed in a later row"
    return f"it has {values} value{'s' * (values != 1)}, the header {width}"


def _swallowed(lines: list[str], values: list[str]) -> bool:
    """Whether a record of several lines has the look of several records.

    Then a stray quote was opened in the first and closed by one in the last. Both look like a record, and so do most of
    those between; empty lines say nothing. In running text, which may well have as many commas, words follow them.
    """
    text = "".join(value for value in values if "\n" in value or "\r" in value)
    if 2 * len(_COMMA_OF_TEXT.findall(text)) >= text.count(","):
        return False
    first, *others = (next(csv.reader([line])) for line in lines if not line.isspace())
    alike = [len(first) + first[-1].count(",") == len(values), *(len(other) == len(values) for other in others)]
    return alike[0] and alike[-1] and 2 * alike.count(True) > len(alike)
