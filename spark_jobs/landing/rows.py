"""What every format has in common: the rows of a file, the columns that a table asks for, bytes that are no text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from infra.errors import DataError
from spark_jobs.landing.text import stripped

_GUIDE = "docs/bring-your-data.md lists every column"
PARQUET = b"PAR1"
_UNPACK, _EXPORT = "Unpack it.", "Save it as CSV in UTF-8."
_MAGIC = {
    b"\x1f\x8b": ("compressed", "gzip", _UNPACK),
    b"PK\x03\x04": ("compressed", "zip (as .xlsx files are too)", _UNPACK),
    b"BZh": ("compressed", "bzip2", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed", "zstd", _UNPACK),
    b"\xfd7zXZ": ("compressed", "xz", _UNPACK),
    b"\xd0\xcf\x11\xe0": ("no text", "Excel's old format", _EXPORT),
    PARQUET: ("no text", "Parquet", "Let its name end in .parquet."),
}
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_MOST_LISTED = 400
_SURROGATES = ("\udc80", "\udcff")


@dataclass(frozen=True)
class Wanted:
    """What a table asks of its landing files.

    Attributes:
        accepted: the columns that a file may have; `needed` are those that it must have.
        ids: the columns that name somebody or something: no number that went through a float, no list, no object.
        time: the column that dates a row.
    """

    table: str
    accepted: tuple[str, ...]
    needed: tuple[str, ...]
    ids: tuple[str, ...]
    time: str


class Row(NamedTuple):
    """A record of a file: its values by column, or what is wrong with it and its text as it stands in the file.

    Of a row with a fault the values are those of the id columns, as far as they can be told: what it may be about.
    `line` is its first line (of an array: its place). `odd` names the id columns whose value is of a kind that no id
    is: a list, an object, a truth value.
    """

    line: int
    values: Sequence[str | None]
    fault: str | None = None
    text: str | None = None
    odd: str | None = None


Rows = Callable[[TextIO], Iterator[Row]]


def check_columns(name: str, columns: Sequence[str], wanted: Wanted) -> None:
    """Refuse a file whose columns are not the table's.

    Raises:
        DataError: a column has no name, is missing, unknown or there twice.
    """
    if columns and columns[0].lower().startswith("sep="):
        raise DataError(
            f"{name} begins with a note to Excel.", where="line 1", why="It says sep=.", do="Take that line away."
        )
    if columns and columns[0].startswith(("{", "[")):
        raise DataError(f"{name} holds JSON.", where="line 1", do="Let its name end in .json, or save it as CSV.")
    if "" in columns:
        raise _unnamed(name, columns)
    missing = [column for column in wanted.needed if column not in columns]
    if missing:
        # What stands between the values of a header that is one name; empty where it is nothing known.
        marks = {";": "semicolons", "\t": "tabs", "|": "bars"}
        separator = next((word for mark, word in marks.items() if len(columns) == 1 and mark in columns[0]), "")
        raise DataError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            why=f"Its values are separated by {separator}." if separator else f"It has: {listed(columns)}.",
            do="Save it with commas." if separator else f"Add or rename; {_GUIDE} of {wanted.table}.",
        )
    unknown = [column for column in columns if column not in wanted.accepted]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if unknown or twice:
        raise DataError(
            f"{name} has {'an unknown column' if unknown else 'a column twice'}: {listed(unknown or twice)}.",
            why=f"{wanted.table} knows: {', '.join(wanted.accepted)}.",
            do=f"Rename it or leave it out; {_GUIDE} of {wanted.table}.",
        )


def _unnamed(name: str, columns: Sequence[str]) -> DataError:
    place = columns.index("") + 1
    reasons = {
        1: "pandas writes its row numbers so; DataFrame.to_csv(index=False) does not",
        len(columns): "the header ends with a comma",
    }
    return DataError(
        f"In {name} column {place} has no name.",
        why=f"Most likely {reasons[place]}." if place in reasons else "",
        do="Name the column, or leave it out.",
    )


def listed(columns: Iterable[str]) -> str:
    """Names of columns for a message: with quotes where blanks or letters that nobody sees are in them, and not all."""
    text = ", ".join(name if name.isprintable() and name == stripped(name) else repr(name) for name in columns)
    return text if len(text) <= _MOST_LISTED else f"{text[:_MOST_LISTED]} ..."


def refuse_other_bytes(name: str, path: Path, but: bytes = b"") -> None:
    """Refuse what is compressed, text of two bytes a letter, or no text; `but` are the first bytes that are asked for.

    Raises:
        DataError: it says which, and how to deliver the file instead.
    """
    with path.open("rb") as stream:
        head = stream.read(256)
    if but and head.startswith(but):
        return
    for magic, (what, kind, do) in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {what}.", why=f"Its bytes are those of {kind}.", do=do)
    if not head.strip(b"\0"):
        raise DataError(f"{name} begins with zeros.", why="Its upload had not ended.", do="Deliver it again.")
    few, many = sorted(part.count(0) / max(1, len(part)) for part in (head[:64:2], head[1:64:2]))
    if head.startswith(_WIDE) or (few < 0.25 and many > 0.5):
        raise DataError(f"{name} is in UTF-16.", do="Save it in UTF-8 (Excel: CSV UTF-8).")
    if but:
        raise DataError(
            f"{name} is no readable Parquet file.",
            why=f"It does not begin with {but.decode()}.",
            do="Let its name end in that of its format (.csv, .jsonl), or deliver it again.",
        )


def text_rows(name: str, path: Path, kind: str, rows: Rows) -> Iterator[Row]:
    """The rows of a file of text.

    Raises:
        DataError: a byte of it is not UTF-8; the row and the line are named.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from rows(stream)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not in UTF-8.",
            where=_first_undecodable(path, kind, rows),
            why=f"Byte 0x{error.object[error.start]:02x} is no UTF-8; Excel and old databases write Windows-1252.",
            do=f"Save it as {kind} in UTF-8.",
        ) from error


def _first_undecodable(path: Path, kind: str, rows: Rows) -> str:
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as stream:
        try:
            for number, row in enumerate(rows(stream), start=1):
                if _undecodable([*row.values, row.text]):
                    return f"row {number} (line {row.line})"
        except DataError:
            pass  # its columns are not the table's: the byte is in one of their names
    if kind == "CSV":
        return "the header"
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:
        return next(f"line {number}" for number, line in enumerate(stream, start=1) if _undecodable([line]))


def _undecodable(values: Iterable[str | None]) -> bool:
    low, high = _SURROGATES
    return any(value is not None and any(low <= letter <= high for letter in value) for value in values)
