"""The objects of a JSON file: one a line, or those of one array, which is read piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from infra.errors import DataError
from spark_jobs.landing.rows import Row, Wanted, check_columns, listed

_PIECE = 1 << 20
_GAPS = re.compile(r"[ \t\r\n]*")


class _Spelled(float):
    """A number with the digits by which it was written: `1.02938E+11` has lost some that `102938000000` has."""

    text: str

    def __new__(cls, text: str) -> _Spelled:
        number = super().__new__(cls, text)
        number.text = text
        return number


class _NoJson(ValueError):
    """Why a text is not read as JSON."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        # Which of the two values counts, nobody can know.
        raise _NoJson(f"an object with the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


_DECODER = json.JSONDecoder(parse_float=_Spelled, object_pairs_hook=_object)


class JsonRows:
    """The records of a JSON file, with a value for each column of `wanted.accepted`; blank lines are none."""

    def __init__(self, name: str, stream: TextIO, wanted: Wanted) -> None:
        self._name, self._stream, self._wanted = name, stream, wanted
        self._columns = wanted.accepted

    def __iter__(self) -> Iterator[Row]:
        """The rows.

        Raises:
            DataError: an object has a key that the table does not know, none has one that it needs, an array is torn,
                or no line is an object.
        """
        seen: set[str] = set()
        objects, first_fault = 0, ""
        for place, text, value in self._values():
            if not isinstance(value, dict):
                row = self._refused(place, f"it is {value if isinstance(value, _NoJson) else 'no object'}", text, value)
                first_fault = first_fault or str(row.fault)
            else:
                objects += 1
                if not value.keys() <= seen:
                    seen |= value.keys()
                    self._check_known(value, place)
                row = self._row(place, text, value)
            yield row
        if objects:
            check_columns(self._name, [column for column in self._columns if column in seen], self._wanted)
        elif first_fault:
            raise DataError(
                f"No line of {self._name} is a JSON object.",
                why=f"{first_fault} Objects that are spread over several lines are read inside one array only.",
                do="Write one object a line, or all of them as one array.",
            )

    def _check_known(self, value: dict[str, Any], place: int) -> None:
        unknown = [key for key in value if key not in self._columns]
        if not unknown:
            return
        if len(value) == 1 and isinstance(value[unknown[0]], list):
            why, do = f"The rows are a list in an object, under {unknown[0]!r}.", "Deliver the list itself."
        else:
            why, do = f"{self._wanted.table} knows: {', '.join(self._columns)}.", "Rename it or leave it out."
        raise DataError(
            f"{self._name} has an unknown column: {listed(unknown)}.", where=f"object {place}", why=why, do=do
        )

    def _values(self) -> Iterator[tuple[int, str | None, Any]]:
        """Place (line, or position in the array), text where there is one, and value of each record."""
        array = self._stream.read(_PIECE).lstrip().startswith("[")
        self._stream.seek(0)
        if array:
            for place, value in enumerate(_elements(self._name, self._stream), start=1):
                yield place, None, value
        else:
            for place, line in enumerate(self._stream, start=1):
                if text := line.lstrip("\ufeff").strip():
                    yield place, text, _decoded(text)

    def _row(self, place: int, text: str | None, value: dict[str, Any]) -> Row:
        values = [_text(value.get(column)) for column in self._columns]
        try:
            "".join(filter(None, values)).encode()
        except UnicodeEncodeError:
            return self._refused(place, "a text in it holds half a character", text, value)
        odd = [column for column in self._wanted.ids if isinstance(value.get(column), bool | list | dict)]
        return Row(place, values, odd=",".join(odd) or None)

    def _refused(self, place: int, fault: str, text: str | None, value: Any) -> Row:
        if text is None:
            return Row(place, (), f"Object {place}: {fault}.", json.dumps(value))
        return Row(place, [self._id(column, text) for column in self._columns], f"Line {place}: {fault}.", text)

    def _id(self, column: str, text: str) -> str | None:
        """The value of an id column in a broken line, where it can be told."""
        if column not in self._wanted.ids:
            return None
        found = re.search(rf'"{column}"\s*:\s*(?:"([^"\\]+)"|(-?[0-9]+))', text)
        return (found[1] or found[2]) if found else None


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except _NoJson as error:
        return error
    except (ValueError, RecursionError) as error:
        return _NoJson(f"no JSON ({error})")


def _elements(name: str, stream: TextIO) -> Iterator[Any]:
    """The elements of one array, decoded piece by piece.

    Raises:
        DataError: the array is torn, or something that is no JSON stands in it or behind it.
    """
    text, place, count = stream.read(_PIECE).lstrip()[1:], 0, 0
    while True:
        try:
            place = _GAPS.match(text, place).end()  # type: ignore[union-attr]  # it matches everywhere
            if text.startswith("]", place):
                break
            value, end = _DECODER.raw_decode(text, place)
            end = _GAPS.match(text, end).end()  # type: ignore[union-attr]
            if not text.startswith((",", "]"), end):
                raise _NoJson(f"{text[end]!r} stands where a comma should" if end < len(text) else "it is not closed")
        except (ValueError, RecursionError) as error:
            more = stream.read(max(_PIECE, len(text) - place))
            if not more:
                raise _torn(name, count, error) from error
            text, place = text[place:] + more, 0
            continue
        count += 1
        yield value
        place = end + text.startswith(",", end)
    if (text[place + 1 :] + stream.read(_PIECE)).strip():
        raise _torn(name, count, _NoJson("something follows its end"))


def _torn(name: str, count: int, error: Exception) -> DataError:
    return DataError(
        f"{name} is no readable JSON file.",
        where=f"after object {count} of its array",
        why=str(error),
        do="Deliver it again, as one array or as one object a line; check that its upload had ended.",
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Spelled):
        return value.text
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
