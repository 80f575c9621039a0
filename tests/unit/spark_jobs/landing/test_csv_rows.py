"""A CSV file holds the records that its writer wrote, and a stray quote costs one of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.spark_jobs.landing.kit import HEADER, read, written

COLUMNS = HEADER.split(",")
_VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_ENDS = st.sampled_from(["\n", "\r\n"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(*[_VALUE] * 4).filter(lambda r: any(v.strip() for v in r)), min_size=1), end=_ENDS)
def test_what_a_writer_wrote_is_read(tmp_path: Path, rows: list[tuple[str, ...]], end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([COLUMNS, *rows])
    found, tally = read(written(tmp_path / "a.csv", text.getvalue()))
    assert [tuple(row["values"].get(c, "") for c in COLUMNS) for row in found] == rows
    assert tally.records == len(rows)


def lines(count: int) -> list[str]:
    return [HEADER, *(f"u{n},i{n},2024-03-01,view" for n in range(1, count + 1))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(opened=st.integers(1, 30), closed=st.integers(1, 30))
def test_a_stray_quote_costs_the_row_that_it_stands_in(tmp_path: Path, opened: int, closed: int) -> None:
    text = lines(30)
    text[opened] = f'"{text[opened]}'
    if closed > opened:
        text[closed] = text[closed].replace(",", '",', 1)
    found, tally = read(written(tmp_path / "a.csv", "\n".join(text)))
    assert tally.records == 30
    assert [row["number"] for row in found if row["fault"]] == [opened]
    assert f"Line {opened + 1}:" in found[opened - 1]["fault"]
    assert found[opened - 1]["line"] == text[opened]


def test_several_stray_quotes_cost_one_row_each(tmp_path: Path) -> None:
    text = lines(20)
    for place in (3, 4, 9, 20):
        text[place] = f'"{text[place]}'
    found, _ = read(written(tmp_path / "a.csv", "\n".join(text)))
    assert [row["number"] for row in found if row["fault"]] == [3, 4, 9, 20]


@pytest.mark.parametrize(
    ("last", "between"),
    [
        ("u3,i3,2024-03-01, view", []),
        ("u3,i3,2024-03-01,view", [""]),
        ("u3,i3,2024-03-01,view", ["  ", "u2, ,2024-03-01,view"]),
        ("u3,i3,2024-03-01,view", ["u2,i2,2024-03-01,view", "u2,i2,2024-03-01,view,"]),
        ("u3,i3,2024-03-01,view", ["u2,i2"]),
        ('u3,"i,3",2024-03-01,"view, click"', []),
        ("u3, , , ", []),
    ],
)
def test_odd_rows_in_its_reach_do_not_hide_a_stray_quote(tmp_path: Path, last: str, between: list[str]) -> None:
    first = '"u1,i1,2024-03-01,view'
    text = [HEADER, first, *between, last.replace(",", '",', 1)]
    found, tally = read(written(tmp_path / "a.csv", "\n".join(text)))
    assert tally.records == 2 + sum(not line.isspace() for line in between if line)
    assert found[0]["line"] == first
    assert found[-1]["values"]["user_id"] == 'u3"'


@pytest.mark.parametrize(
    "story", ["Soft,red\nand, green", "red\n\nsmall, large", '{\n  "a": [1,2,3],\n  "b": [4,5,6]\n}']
)
def test_what_a_writer_spread_over_several_lines_is_one_value(tmp_path: Path, story: str) -> None:
    row = ["u", "i", "2024-03-01", story]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, row, ["u2", "i", "2024-03-01", "view"]])
    found, _ = read(written(tmp_path / "a.csv", text.getvalue()))
    assert tuple(found[0]["values"].values()) == tuple(row)
    assert len(found) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_that_were_joined_are_read_but_for_the_inner_header(tmp_path: Path, end: str) -> None:
    part = f'\ufeff"user_id","item_id","event_time","event_type"{end}"u","i","2024-03-01","view"{end}'
    found, _ = read(written(tmp_path / "a.csv", part + part))
    assert [row["values"].get("user_id") for row in found] == ["u", None, "u"]
    assert found[1]["fault"] == "Line 3: it repeats the header."


def test_empty_lines_above_the_header_are_none(tmp_path: Path) -> None:
    found, tally = read(written(tmp_path / "a.csv", f"\n\r\n{HEADER}\nu,i,2024-03-01,view\nu,i,2024-03-01\n"))
    assert tally.records == 2
    assert "Line 5:" in found[1]["fault"]


def test_a_file_of_empty_lines_says_so(tmp_path: Path) -> None:
    assert "only empty lines" in str(read(written(tmp_path / "a.csv", "\n\n"))[1].problem)


def test_zeros_where_rows_should_be_are_a_refused_row(tmp_path: Path) -> None:
    found, tally = read(written(tmp_path / "a.csv", "\n".join(lines(3)).encode() + b"\n" + bytes(3_000)))
    assert tally.records == 4
    assert found[3]["fault"]


def test_running_text_over_several_lines_is_one_value(tmp_path: Path) -> None:
    story = "red, blue, green, white\nsmall, large, huge, tiny"
    found, tally = read(written(tmp_path / "a.csv", f'{HEADER}\nu,i,2024-03-01,"{story}"\nu2,i,2024-03-01,view\n'))
    assert tally.records == 2
    assert found[0]["values"]["event_type"] == story


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (f",{HEADER}", "column 1 has no name"),
        (f"{HEADER},", "column 5 has no name"),
        (HEADER.replace(",", ";"), "separated by semicolons"),
        (HEADER.replace(",", "\t"), "separated by tabs"),
        (f"sep=,\n{HEADER}", "note to Excel"),
        (f"{HEADER},user_id", "a column twice: user_id"),
        (f"{HEADER},mood", "an unknown column: mood"),
        (f"{HEADER},mo\u200bod", r"an unknown column: 'mo\u200bod'"),
        (HEADER.replace("u", "w" * 5_000), "wwww ..."),
        ('[{"user_id": "u", "item_id": "i"}]', "holds JSON"),
        ('user_id,"item', "header of a.csv cannot be read"),
    ],
)
def test_a_header_that_is_not_the_tables_is_explained(tmp_path: Path, header: str, complaint: str) -> None:
    found, tally = read(written(tmp_path / "a.csv", f"{header}\na,b,c,d\n"))
    assert complaint in str(tally.problem)
    assert "do:" in str(tally.problem)
    assert found == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (f"{HEADER}\nu,i".encode("utf-16-le"), "UTF-16"),
        (f"{HEADER}\nu,i".encode("utf-16-be"), "UTF-16"),
        (bytes(4_096), "begins with zeros"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Excel's old format"),
        (b"PAR1\x15\x04", "end in .parquet"),
        (b"BZh91AY", "bzip2"),
    ],
)
def test_what_is_no_csv_is_told_by_its_first_bytes(tmp_path: Path, content: bytes, complaint: str) -> None:
    _, tally = read(written(tmp_path / "a.csv", content))
    assert complaint in str(tally.problem)
    assert "do:" in str(tally.problem)


@pytest.mark.parametrize("place", [1, 500, 5_000])
def test_a_byte_that_is_no_utf_8_is_named_by_row_wherever_it_stands(tmp_path: Path, place: int) -> None:
    text = lines(5_000)
    text[place] = text[place].replace("view", "gewählt")
    _, tally = read(written(tmp_path / "a.csv", "\n".join(text).encode("cp1252")))
    assert f"row {place} (line {place + 1})" in str(tally.problem)
    assert "Save it as CSV in UTF-8" in str(tally.problem)


def test_such_a_byte_in_the_header_is_named(tmp_path: Path) -> None:
    _, tally = read(written(tmp_path / "a.csv", f"{HEADER},größe\n1,2,3,4,5\n".encode("cp1252")))
    assert "the header" in str(tally.problem)


def test_blank_lines_are_no_rows_and_a_row_of_commas_is_an_empty_one(tmp_path: Path) -> None:
    found, tally = read(written(tmp_path / "a.csv", f"{HEADER}\nu,i,2024-03-01,view\n\n   \n,,,\n , ,\xa0,\n"))
    assert tally.records == 3
    assert [any(v.strip() for v in row["values"].values()) for row in found] == [True, False, False]
    assert all(row["fault"] is None for row in found)


@pytest.mark.parametrize(
    ("broken", "of", "left_out"), [(30, 50, True), (25, 50, False), (19, 20, False), (20, 21, True)]
)
def test_a_file_most_of_whose_lines_are_broken_is_at_fault_as_a_whole(
    tmp_path: Path, broken: int, of: int, left_out: bool
) -> None:
    text = [line + ",too,many" if 0 < place <= broken else line for place, line in enumerate(lines(of))]
    found, tally = read(written(tmp_path / "a.csv", "\n".join(text)))
    assert (tally.records, sum(row["fault"] is not None for row in found)) == (of, broken)
    assert (tally.problem is not None) == left_out
    if tally.problem:
        assert f"{broken} of its {of} records are broken" in str(tally.problem)
