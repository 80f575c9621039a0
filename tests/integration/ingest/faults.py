"""Every kind of fault that landing files of real shops had: each plants one file and says what has to become of it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER = ("user_id", "item_id", "event_time", "event_type")
ROWS = 8


@dataclass(frozen=True)
class Planted:
    """What has to become of a planted file.

    Attributes:
        records: those that count; None where the file has to be left out and named, 0 where it is not to be seen.
        refused: row to the rule that refuses or drops it.
        mentioned: what the report has to say beside the file's name.
    """

    name: str
    records: int | None
    refused: Mapping[int, str] = field(default_factory=dict)
    mentioned: tuple[str, ...] = ()


Plant = Callable[[Path, str], Planted]
FAULTS: dict[str, Plant] = {}


def _fault(plant: Plant) -> Plant:
    FAULTS[plant.__name__.strip("_")] = plant
    return plant


def rows(tag: str, count: int = ROWS, day: str = "2024-03-02") -> list[dict[str, str]]:
    """Good events that no other tag has."""
    return [
        dict(zip(HEADER, (f"{tag}-{n}", f"i{n % 9 + 1}", f"{day}T10:{n:02d}:00Z", "view"), strict=True))
        for n in range(count)
    ]


def csv_text(events: list[dict[str, str]], end: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(events[0]), lineterminator=end)
    writer.writeheader()
    writer.writerows(events)
    return text.getvalue()


def _put(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / "events" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"events/{name}"


def _put_lines(folder: Path, name: str, lines: list[str]) -> str:
    return _put(folder, name, "\n".join([*lines, ""]))


def _with_row(folder: Path, tag: str, rule: str, **changes: str) -> Planted:
    """A CSV file whose fourth row is bad."""
    events = rows(tag)
    events[3] |= changes
    return Planted(_put(folder, f"{tag}.csv", csv_text(events)), ROWS, {4: rule}, ("row 4", rule))


def _good(name: str, records: int = ROWS) -> Planted:
    return Planted(name, records)


def _left_out(name: str, *mentioned: str) -> Planted:
    return Planted(name, None, mentioned=("do:", *mentioned))


@_fault
def quote_never_closed(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    lines[3] = f'"{lines[3]}'
    return Planted(_put_lines(folder, f"{tag}.csv", lines), ROWS, {3: "row_readable"}, ("row 3", "Line 4", "closed"))


@_fault
def quote_closed_by_a_later_one(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    lines[3] = f'"{lines[3]}'
    lines[6] = lines[6].replace(",", '",', 1)
    return Planted(_put_lines(folder, f"{tag}.csv", lines), ROWS, {3: "row_readable"}, ("row 3", "later row"))


@_fault
def quote_in_the_middle(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    lines[5] = f'"{tag} 12" TV",' + lines[5].split(",", 1)[1]
    return Planted(_put_lines(folder, f"{tag}.csv", lines), ROWS, {5: "row_readable"}, ("row 5", "Line 6"))


@_fault
def value_over_two_lines(folder: Path, tag: str) -> Planted:
    events = rows(tag)
    events[2]["user_id"] = f"{tag}\r\nsecond line, with a comma"
    return _good(_put(folder, f"{tag}.csv", csv_text(events)))


@_fault
def too_few_values(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    lines[4] = "only,two"
    return Planted(_put_lines(folder, f"{tag}.csv", lines), ROWS, {4: "row_readable"}, ("2 values, the header 4",))


@_fault
def time_of_spark(folder: Path, tag: str) -> Planted:
    moments = pa.array([1709373600 * 10**9 + n for n in range(ROWS)], pa.timestamp("ns", "UTC"))
    table = pa.Table.from_pylist(rows(tag)).set_column(2, "event_time", moments)
    (folder / "events").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"events/{tag}.parquet", use_deprecated_int96_timestamps=True)
    return _good(f"events/{tag}.parquet")


@_fault
def time_of_23_digits(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "event_time_is_timestamp", event_time="17092872001709287200170")


@_fault
def time_zone_by_letters(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "event_time_is_timestamp", event_time="2024-03-02 10:00:00 IST")


@_fault
def time_in_e_notation(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "event_time_is_timestamp", event_time="1.70929E+12")


@_fault
def id_in_e_notation(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "user_id_is_an_id", user_id="1.02938E+11")


@_fault
def id_is_a_word_for_nothing(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "user_id_present", user_id="NULL")


@_fault
def unknown_item(folder: Path, tag: str) -> Planted:
    return _with_row(folder, tag, "item_known", item_id="i404")


@_fault
def blanks_that_nobody_sees(folder: Path, tag: str) -> Planted:
    events = rows(tag)
    events[1] |= {"user_id": f"\xa0{tag}-x\u200b", "item_id": "\ti1 ", "event_type": "view\xa0"}
    return _good(_put(folder, f"{tag}.csv", csv_text(events)))


@_fault
def line_ends_of_three_systems(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    return _good(_put(folder, f"{tag}.csv", "\ufeff" + "\r\n".join(lines[:3]) + "\r" + "\n".join(lines[3:])))


@_fault
def blank_rows_at_the_end(folder: Path, tag: str) -> Planted:
    name = _put(folder, f"{tag}.csv", csv_text(rows(tag)) + "\n   \n,,,\n,,,\n")
    return Planted(name, ROWS + 2, dict.fromkeys((ROWS + 1, ROWS + 2), "row_not_empty"), ("row_not_empty",))


@_fault
def very_long_value(folder: Path, tag: str) -> Planted:
    events = rows(tag)
    events[0]["user_id"] = tag + "x" * 220_000
    return _good(_put(folder, f"{tag}.csv", csv_text(events)))


@_fault
def name_with_an_umlaut(folder: Path, tag: str) -> Planted:
    return _good(_put(folder, f"{tag} März.csv", csv_text(rows(tag))))


@_fault
def windows_1252(folder: Path, tag: str) -> Planted:
    events = [*rows(tag), {**rows(tag)[0], "user_id": f"{tag} ü"}]
    return _left_out(_put(folder, f"{tag}.csv", csv_text(events).encode("cp1252")), f"row {ROWS + 1}", "UTF-8")


@_fault
def utf_16(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.csv", csv_text(rows(tag)).encode("utf-16")), "UTF-16")


@_fault
def compressed(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.csv", gzip.compress(csv_text(rows(tag)).encode())), "compressed")


@_fault
def tabs_for_commas(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.csv", csv_text(rows(tag)).replace(",", "\t")), "tabs")


@_fault
def index_of_pandas(folder: Path, tag: str) -> Planted:
    lines = csv_text(rows(tag)).splitlines()
    numbered = [f",{lines[0]}", *(f"{n},{line}" for n, line in enumerate(lines[1:]))]
    return _left_out(_put_lines(folder, f"{tag}.csv", numbered), "column 1 has no name", "pandas")


@_fault
def unknown_column(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.csv", csv_text([row | {"Mood": "1"} for row in rows(tag)])), "Mood")


@_fault
def no_row(folder: Path, tag: str) -> Planted:
    return _left_out(_put_lines(folder, f"{tag}.csv", [",".join(HEADER)]), "holds no row")


@_fault
def no_byte(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.jsonl", ""), "is empty")


@_fault
def broken_link(folder: Path, tag: str) -> Planted:
    (folder / "events").mkdir(parents=True, exist_ok=True)
    (folder / f"events/{tag}.csv").symlink_to(folder / "nowhere.csv")
    return _left_out(f"events/{tag}.csv", "nowhere.csv")


def _json_lines(events: list[Any]) -> list[str]:
    return [json.dumps(event) for event in events]


@_fault
def torn_json_line(folder: Path, tag: str) -> Planted:
    lines = _json_lines(rows(tag))
    lines[-1] = lines[-1][:30]
    return Planted(_put_lines(folder, f"{tag}.jsonl", lines), ROWS, {ROWS: "row_readable"}, (f"Line {ROWS}",))


@_fault
def id_of_mongo(folder: Path, tag: str) -> Planted:
    lines = _json_lines([*rows(tag)[1:], rows(tag)[0] | {"user_id": {"$oid": "65e1a0c0ffee"}}])
    name = _put_lines(folder, f"{tag}.jsonl", lines)
    return Planted(name, ROWS, {ROWS: "user_id_is_an_id"}, (f"row {ROWS}", "user_id_is_an_id"))


@_fault
def half_a_letter(folder: Path, tag: str) -> Planted:
    lines = _json_lines([rows(tag)[0] | {"user_id": "\ud83d"}, *rows(tag)[1:]])
    return Planted(_put_lines(folder, f"{tag}.jsonl", lines), ROWS, {1: "row_readable"}, ("Line 1",))


@_fault
def wrapped_json(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.json", json.dumps({"data": rows(tag)})), "'data'")


@_fault
def torn_array(folder: Path, tag: str) -> Planted:
    return _left_out(_put(folder, f"{tag}.json", json.dumps(rows(tag))[:-20]), "no readable JSON")


@_fault
def torn_parquet(folder: Path, tag: str) -> Planted:
    whole = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows(tag)), whole)
    return _left_out(_put(folder, f"{tag}.parquet", whole.getvalue()[:-9]), "Parquet")


@_fault
def ids_through_a_float(folder: Path, tag: str) -> Planted:
    numbers = pa.array([float(7_000_000 + sum(map(ord, tag)) * 100 + n) for n in range(ROWS)])
    table = pa.Table.from_pylist(rows(tag)).set_column(0, "user_id", numbers)
    (folder / "events").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"events/{tag}.parquet")
    return _good(f"events/{tag}.parquet")


@_fault
def rows_of_an_earlier_file(folder: Path, tag: str) -> Planted:
    _put(folder, f"{tag}-1.csv", csv_text(rows(tag)[:3]))
    name = _put(folder, f"{tag}-2.csv", csv_text(rows(tag)))
    return Planted(name, ROWS + 3, dict.fromkeys((1, 2, 3), "exact_copy"), ("exact_copy",))


@_fault
def the_same_file_twice(folder: Path, tag: str) -> Planted:
    _put(folder, f"{tag}-1.csv", csv_text(rows(tag)))
    return Planted(_put(folder, f"{tag}-2.csv", csv_text(rows(tag))), ROWS, mentioned=("is equal to",))


@_fault
def hidden_folder(folder: Path, tag: str) -> Planted:
    return Planted(_put(folder, f".ipynb_checkpoints/{tag}.csv", csv_text(rows(tag))), 0)


@_fault
def linked_folder(folder: Path, tag: str) -> Planted:
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / f"elsewhere/{tag}.csv").write_text(csv_text(rows(tag)))
    (folder / "events").mkdir(parents=True, exist_ok=True)
    if not (folder / "events/linked").exists():
        (folder / "events/linked").symlink_to(folder / "elsewhere")
    return _good(f"events/linked/{tag}.csv")
