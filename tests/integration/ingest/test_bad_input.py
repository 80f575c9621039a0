"""Each kind of bad input: a message with file, row, rule and what to do; good rows go on; the counts add up."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from infra.contracts import UNDATED
from infra.errors import EXIT_DATA, DataError
from infra.lake import Lake, verify
from infra.ledger import Ledger
from registry.data_quality import check_data
from spark_jobs.__main__ import main as command
from spark_jobs.engine.commit import JobReport
from tests.landing_kit import GOOD, Shop, event, many_good_events

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "a price that is no number": (event(price="cheap"), "price_is_double"),
    "a price of Java's": (event(price="3d"), "price_is_double"),
    "a price in base sixteen": (event(price="0x1p3"), "price_is_double"),
    "a user without end": (event(user_id="-inf"), "user_id_is_an_id"),
    "a negative price": (event(price="-1"), "price_not_negative"),
    "a price without end": (event(price="inf"), "price_is_double"),
    "a time that cannot be parsed": (event(event_time="last Tuesday"), "event_time_is_timestamp"),
    "a clock time without a day": (event(event_time="12:30"), "event_time_is_timestamp"),
    "no time": (event(event_time=""), "event_time_present"),
    "an event in the future": (event(event_time=TOMORROW), "event_time_not_in_future"),
    "an event at the start of the epoch": (event(event_time="1970-01-01T00:00:00Z"), "event_time_plausible"),
    "an item that is not in the catalogue": (event(item_id="i404"), "item_known"),
    "no user": (event(user_id=" "), "user_id_present"),
    "an unknown type of event": (event(event_type="stare"), "event_type_known"),
    "six stars": (event(rating="6"), "rating_in_range"),
}


def balanced(report: JobReport) -> bool:
    return all(w.rows_in == w.rows_out + w.rows_quarantined for w in report.published)


def test_every_bad_row_is_refused_with_its_file_row_and_rule_while_good_rows_go_on(shop: Shop) -> None:
    good = [{**row, "price": "1.5", "rating": "5"} for row in many_good_events(200)]
    bad = [{"price": "", "rating": "", **row} for row, _ in BAD_ROWS.values()]
    shop.put("events/monday.csv", [*good, *bad])

    report = shop.ingest()

    expected = {("events/monday.csv", 201 + n): rule for n, (_, rule) in enumerate(BAD_ROWS.values())}
    assert shop.refused() == expected
    assert len(shop.rows()) == 200
    assert report.exit_code == 0
    assert balanced(report)
    assert sum(w.rows_in for w in report.published) == 200 + len(bad)
    assert shop.ledger.reconcile() == []
    lines = "\n".join(report.lines())
    assert (
        "1 refused by rule price_not_negative in events/monday.csv, first in row 205. A price is never below zero."
        in lines
    )


def test_undated_rows_are_counted_in_the_partition_of_the_undated(shop: Shop) -> None:
    shop.put("events.csv", [*many_good_events(), event(event_time="?")])
    report = shop.ingest()
    assert {w.partition: w.rows_quarantined for w in report.published} == {UNDATED: 1, date(2024, 3, 1): 0}


def test_of_rows_with_one_key_the_first_by_file_and_row_stays(shop: Shop) -> None:
    rated = [{**row, "rating": 5} for row in many_good_events()]
    shop.put("events/a.jsonl", rated)
    shop.put("events/b.jsonl", [{**event(user_id="u7"), "rating": 1}])
    shop.ingest()
    assert shop.refused() == {("events/b.jsonl", 1): "unique_key"}
    assert {row["rating"] for row in shop.rows()} == {5.0}


def test_a_bad_row_does_not_push_out_a_good_one_of_the_same_key(shop: Shop) -> None:
    shop.put("events/a.jsonl", [{**event(user_id="u7"), "rating": 9}])
    shop.put("events/b.jsonl", [{**row, "rating": 5} for row in many_good_events()])
    shop.ingest()
    assert shop.refused() == {("events/a.jsonl", 1): "rating_in_range"}
    assert len(shop.rows()) == 30


def test_a_broken_csv_line_and_a_broken_json_line_are_refused_by_row(shop: Shop) -> None:
    header = ",".join(GOOD)
    lines = [",".join(row.values()) for row in many_good_events()]
    shop.put_text("events/a.csv", "\n".join([header, *lines, "only,three,values", ""]))
    shop.put("events/b.jsonl", [event(user_id=f"v{n}") for n in range(30)])
    with (shop.profile.landing / "events/b.jsonl").open("a") as stream:
        stream.write('{"user_id": "v31", \n')
    shop.ingest()
    assert shop.refused() == {("events/a.csv", 31): "row_readable", ("events/b.jsonl", 31): "row_readable"}


def test_the_refused_rows_are_also_a_csv_for_people(shop: Shop) -> None:
    shop.put("events.csv", [*many_good_events(), event(item_id="i404")])
    shop.ingest()
    written = pacsv.read_csv(shop.profile.home / "report" / "quarantine" / "events-2024-03-01.csv").to_pylist()
    assert [(row["rule"], row["source_file"], row["source_row"]) for row in written] == [
        ("item_known", "events.csv", 31)
    ]
    assert '"item_id":"i404"' in written[0]["row_json"]


FILES: dict[str, tuple[str, str, str]] = {
    "an unknown column": (
        "events/x.csv",
        "user_id,item_id,event_time,event_type,mood\nu,i1,2024-03-01,view,good\n",
        "mood",
    ),
    "a missing column": ("events/x.csv", "user_id,item_id,event_type\nu,i1,view\n", "lacks the column event_time"),
    "semicolons for commas": (
        "events/x.csv",
        "user_id;item_id;event_time;event_type\nu;i1;2024-03-01;view\n",
        "separated by semicolons",
    ),
    "no byte": ("events/x.csv", "", "is empty"),
    "a header and no row": ("events/x.csv", "user_id,item_id,event_time,event_type\n", "holds no row"),
    "an unknown format": ("events/x.xlsx", "PK", "is not known"),
    "a truncated Parquet file": ("events/x.parquet", "PAR1 and then the line went dead", "no readable Parquet"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_named_and_the_others_go_on(shop: Shop, case: str) -> None:
    name, content, complaint = FILES[case]
    shop.put_text(name, content)
    shop.put("events/good.csv", many_good_events())
    shop.put("queries.csv", [{"query": "lamp"}])

    report = shop.ingest()

    (problem,) = report.problems
    assert name in problem
    assert complaint in problem
    assert "do:" in problem
    assert report.exit_code == EXIT_DATA
    assert len(shop.rows()) == 30


@pytest.mark.parametrize("compression", ["snappy", "none"])
@pytest.mark.parametrize("column", ["user_id", "event_time"])
def test_a_damaged_page_behind_a_good_footer_is_named_and_the_other_files_go_on(
    shop: Shop, compression: str, column: str
) -> None:
    damaged = shop.profile.landing / "events/x.parquet"
    shop.put("events/good.parquet", many_good_events())
    rows = pa.Table.from_pylist([event(user_id=f"x{n}", event_time="2024-03-02T08:00:00Z") for n in range(30)])
    pq.write_table(rows, damaged, compression=compression, use_dictionary=False, write_page_checksum=True)
    _spoil(damaged, rows.column_names.index(column))

    report = shop.ingest()

    (problem,) = report.problems
    assert "events/x.parquet is no readable Parquet file" in problem
    assert "damaged" in problem
    assert "do:    Deliver it again" in problem
    assert report.exit_code == EXIT_DATA
    assert {row["event_date"] for row in shop.rows()} == {date(2024, 3, 1)}
    assert [file.name for file in shop.ledger.landings.files("events")] == ["events/good.parquet"]

    pq.write_table(rows, damaged)
    assert [(w.partition, w.rows_out) for w in shop.ingest().published] == [(date(2024, 3, 2), 30)]


def _spoil(path: Path, column: int) -> None:
    """Change one byte in the middle of a column's data; the footer stays as it was."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(content)


def test_above_the_contract_s_share_the_partition_stops_and_the_old_version_stays(shop: Shop) -> None:
    shop.put("events/day1.csv", many_good_events(10))
    shop.ingest()
    shop.put("events/day1.csv", [*many_good_events(10), *(event(user_id=f"w{n}", item_id="i404") for n in range(5))])
    shop.put("events/day2.csv", [event(event_time="2024-03-02T08:00:00Z")])

    report = shop.ingest()

    assert report.exit_code == EXIT_DATA
    assert [stop.partition for stop in report.stopped] == [date(2024, 3, 1)]
    assert "5 of 15 rows are bad (33.3%, at most 10.0%), most often by rule item_known (5)" in report.stopped[0].why
    assert sorted(row["event_date"] for row in shop.rows()) == [date(2024, 3, 1)] * 10 + [date(2024, 3, 2)]


def test_a_file_whose_times_are_all_wrong_stops(shop: Shop) -> None:
    shop.put("events.csv", [event(user_id=f"u{n}", event_time="01/03/2024") for n in range(20)])
    report = shop.ingest()
    assert report.exit_code == EXIT_DATA
    assert [stop.partition for stop in report.stopped] == [UNDATED]


def test_without_items_events_say_that_items_come_first(tmp_path: Path, shop: Shop) -> None:
    from infra.profile import load_profile

    profile = load_profile(
        "local", environ={"PLUMBLINE__HOME": str(tmp_path / "h2"), "PLUMBLINE__LANDING": str(shop.profile.landing)}
    )
    other = Shop(profile)
    other.put("events.csv", many_good_events(1))
    with pytest.raises(DataError, match="Ingest items first"):
        other.ingest()


def test_a_landing_folder_without_events_says_what_to_put_there(shop: Shop) -> None:
    with pytest.raises(DataError, match=r"events\.csv"):
        shop.ingest()


def _landed(shop: Shop, day: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *tables: str) -> tuple[int, Any]:
    """What the task `landed` ends with for a day: its exit code and what it hands on."""
    handed = tmp_path / "handed.json"
    monkeypatch.setattr("spark_jobs.__main__.load_profile", lambda: shop.profile)
    monkeypatch.setattr("sys.argv", ["spark_jobs", *(tables or ("events", "queries")), "--go-on", "--partition", day])
    monkeypatch.setenv("PLUMBLINE_RESULT_FILE", str(handed))
    return command(), json.loads(handed.read_text()) if handed.exists() else None


def test_the_chain_goes_on_without_a_file_that_cannot_be_used_and_a_later_task_tells_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop.put("events/good.csv", many_good_events())
    (shop.profile.landing / "events" / "odd.csv").write_text("colour\nred\n")
    code, handed = _landed(shop, "2024-03-01", monkeypatch, tmp_path)
    assert code == 0
    (line,) = handed["refused"]
    assert "events/odd.csv" in line
    assert len(shop.rows()) == len(many_good_events())


def test_where_no_day_of_the_range_could_be_landed_the_chain_stops(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (shop.profile.landing / "events").mkdir()
    (shop.profile.landing / "events" / "odd.csv").write_text("colour\nred\n")
    assert _landed(shop, "2024-03-01", monkeypatch, tmp_path) == (EXIT_DATA, None)


def test_a_file_of_broken_lines_is_left_out_and_the_others_go_on(shop: Shop) -> None:
    shop.put("events/good.csv", many_good_events(100))
    lines = ["user_id,item_id,event_time,event_type", *(f"u{n};i1;2024-03-01;view" for n in range(60))]
    (shop.profile.landing / "events" / "other.csv").write_text("\n".join(lines))
    report = shop.ingest()
    assert report.exit_code == EXIT_DATA
    assert ["events/other.csv" in problem for problem in report.problems] == [True]
    assert len(shop.rows()) == 100
    assert report.stopped == ()


def _catalogue(shop: Shop, broken: int) -> None:
    """100 items without a date, `broken` of them lines of another width."""
    rows = [f"i{n},Item number {n}" + (",?" if n < broken else "") for n in range(100)]
    shop.put_text("items.csv", "\n".join(["item_id,title", *rows]))


def test_of_a_broken_first_catalogue_the_good_rows_stand_in_and_each_run_says_so_until_it_is_mended(
    new_shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _catalogue(new_shop, broken=30)
    new_shop.put("events.csv", [event(user_id=f"u{n}", item_id=f"i{n}") for n in range(100)])
    for _ in range(2):
        code, handed = _landed(new_shop, "2024-03-01", monkeypatch, tmp_path, "landed")
        assert code == 0
        (line,) = handed["refused"]
        assert "items 1970-01-01 stopped: 30 of 100 rows are bad (30.0%, at most 5.0%)" in line
        assert (len(new_shop.rows("items")), len(new_shop.rows())) == (70, 70)
        assert {file: rule for (file, _), rule in new_shop.refused().items()} == {"events.csv": "item_not_refused"}
        assert new_shop.ledger.reconcile() == []
    (problem,) = check_data(new_shop.ledger, ["events", "items"]).problems
    assert "30 of 100" in problem

    _catalogue(new_shop, broken=2)
    (tmp_path / "handed.json").unlink()
    assert _landed(new_shop, "2024-03-01", monkeypatch, tmp_path, "landed") == (0, None)
    assert (len(new_shop.rows("items")), len(new_shop.rows())) == (98, 98)
    assert check_data(new_shop.ledger, ["events", "items"]).problems == ()


def test_events_of_items_that_were_refused_are_set_aside_and_stop_no_day_until_the_items_come_again(shop: Shop) -> None:
    """A row of it is refused for its price, one cannot be read, one is of no day: none of the events is to blame."""
    lines = [f"i{n},Item number {n},{-1 if n == 3 else 1},2024-03-01" for n in range(1, 90)]
    lines[6] += ",?"
    lines[7] = lines[7].replace("2024-03-01", "soon")
    shop.put_text("items/march.csv", "\n".join(["item_id,title,price,snapshot_date", *lines]))
    assert shop.ingest("items").exit_code == 0
    wanted = [f"i{n}" for n in (3, 7, 8) for _ in range(10)]
    users = iter(f"w{n}" for n in range(100))
    shop.put("events.csv", [*many_good_events(10), *(event(user_id=next(users), item_id=item) for item in wanted)])

    report = shop.ingest()

    assert (report.exit_code, len(shop.rows())) == (0, 10)
    assert set(shop.refused().values()) == {"item_not_refused"}
    text = "\n".join(report.lines())
    assert "30 dropped by rule item_not_refused in events.csv, first in row 11" in text
    assert "once that is delivered again" in text
    lines = [f"i{n},Item number {n},1,2024-03-01" for n in range(1, 90)]
    shop.put_text("items/march.csv", "\n".join(["item_id,title,price,snapshot_date", *lines]))
    shop.ingest("items")
    shop.ingest()
    assert (len(shop.rows()), shop.refused()) == (40, {})


@pytest.mark.parametrize(
    ("name", "line", "item"),
    [
        ("items/broken.csv", 'urn:sku:7,"Broken,2,2024-03-01', "urn:sku:7"),
        ("items/broken.csv", "SKU 8,Wide,x,2,2024-03-01,9", "SKU 8"),
        ("items/broken.csv", '"sku;9",Wide,x,2,2024-03-01,9', "sku;9"),
        ("items/broken.jsonl", '{"title": "T", "item_id": "a:b/1", broken', "a:b/1"),
        ("items/broken.jsonl", '{"title": "T", "item_id" : 77, "price": 2', "77"),
    ],
)
def test_an_item_whose_line_cannot_be_read_is_known_by_its_id_and_nothing_else_of_the_line_is(
    shop: Shop, name: str, line: str, item: str
) -> None:
    good = [{"item_id": f"k{n}", "title": f"Item {n}", "snapshot_date": "2024-03-01"} for n in range(40)]
    path = shop.put(name, [{**row, "price": "1"} for row in good])
    path.write_text(path.read_text() + line + "\n")
    shop.ingest("items")
    shop.put("events.csv", [event(user_id=f"u{n}", item_id=each) for n, each in enumerate(["k1"] * 30 + [item, "2"])])
    shop.ingest()
    assert shop.refused() == {("events.csv", 31): "item_not_refused", ("events.csv", 32): "item_known"}


def test_where_a_delivery_of_items_is_stopped_days_with_its_new_items_say_so(shop: Shop) -> None:
    items = [{"item_id": f"n{n}", "title": f"Item {n}", "snapshot_date": "2024-03-01"} for n in range(20)]
    shop.put("items/march.csv", [{**item, "price": -1 if n < 5 else 1} for n, item in enumerate(items)])
    assert [stop.partition for stop in shop.ingest("items").stopped] == [date(2024, 3, 1)]
    shop.put("events.csv", [event(user_id=f"u{n}", item_id=f"n{n}") for n in range(20)])
    report = shop.ingest()
    assert len(report.stopped) == 1
    assert "events: items of 2024-03-01 were stopped: rows of new items are refused until then" in report.messages


def test_events_of_items_that_were_never_delivered_still_stop_their_day(shop: Shop) -> None:
    lines = [f"i{n},Item number {n},{-1 if n == 3 else 1},2024-03-01" for n in range(1, 90)]
    shop.put_text("items/march.csv", "\n".join(["item_id,title,price,snapshot_date", *lines]))
    shop.ingest("items")
    shop.put("events.csv", [*many_good_events(10), *(event(user_id=f"w{n}", item_id="i404") for n in range(10))])
    (stop,) = shop.ingest().stopped
    assert "most often by rule item_known (10)" in stop.why


def test_judgments_without_a_day_are_of_items_of_any_delivery_and_dated_ones_of_that_day_s(new_shop: Shop) -> None:
    for day, items in (("2024-03-01", "ab"), ("2024-03-02", "bc")):
        catalogue = [{"item_id": i, "title": f"Item {i}", "snapshot_date": day} for i in items]
        new_shop.put(f"items/{day}.csv", catalogue)
    new_shop.ingest("items")
    judged = {"query": "q", "grade": 2}
    new_shop.put("judgments/undated.csv", [{**judged, "item_id": item} for item in "abc"])
    assert new_shop.ingest("judgments").exit_code == 0
    assert sorted(row["item_id"] for row in new_shop.rows("judgments")) == ["a", "b", "c"]
    rows = [{**judged, "query": f"q{n}", "item_id": "c", "judged_date": "2024-03-02"} for n in range(200)]
    new_shop.put("judgments/dated.csv", [*rows, {**judged, "item_id": "a", "judged_date": "2024-03-02"}])
    new_shop.ingest("judgments")
    assert new_shop.refused("judgments") == {("judgments/dated.csv", 201): "item_known"}


def test_judgments_without_a_day_whose_items_are_gone_from_all_deliveries_stop_and_the_old_ones_stay(
    new_shop: Shop,
) -> None:
    new_shop.put("items.csv", [{"item_id": f"i{n}", "title": f"Item {n}"} for n in range(40)])
    new_shop.ingest("items")
    new_shop.put("judgments.csv", [{"query": "q", "item_id": f"i{n}", "grade": 1} for n in range(40)])
    new_shop.ingest("judgments")
    new_shop.put("items.csv", [{"item_id": f"i{n}", "title": f"Item {n}"} for n in range(100, 140)])
    new_shop.ingest("items")
    report = new_shop.ingest("judgments")
    assert report.exit_code == EXIT_DATA
    assert "40 of 40 rows are bad (100.0%, at most 2.0%), most often by rule item_known" in report.refusals[0]
    assert any("40 refused by rule item_known in judgments.csv" in line for line in report.messages)
    assert len(new_shop.rows("judgments")) == 40


@pytest.mark.parametrize("names", [("b", "a"), ("a", "b")])
def test_a_second_undated_catalogue_of_the_same_items_displaces_nothing_in_silence(
    new_shop: Shop, names: tuple[str, str]
) -> None:
    old, new = names
    new_shop.put(f"items/{old}.csv", [{"item_id": f"i{n}", "title": "old"} for n in range(40)])
    new_shop.ingest("items")
    new_shop.put(f"items/{new}.csv", [{"item_id": f"i{n}", "title": "new"} for n in range(40)])
    report = new_shop.ingest("items")
    assert [stop.partition for stop in report.stopped] == [UNDATED]
    assert "40 of 80 rows are bad" in report.stopped[0].why
    assert f"40 refused by rule unique_key in items/{max(names)}.csv" in "\n".join(report.messages)
    assert {row["title"] for row in new_shop.rows("items")} == {"old"}


def test_a_judgment_of_no_day_waits_for_the_item_of_a_later_delivery(new_shop: Shop) -> None:
    new_shop.put("items/1.csv", [{"item_id": "a", "title": "Item a", "snapshot_date": "2024-03-01"}])
    new_shop.ingest("items")
    new_shop.put(
        "judgments.csv", [{"query": f"q{n}", "item_id": "b" if n == 9 else "a", "grade": 1} for n in range(200)]
    )
    new_shop.ingest("judgments")
    assert len(new_shop.rows("judgments")) == 199
    new_shop.put("items/2.csv", [{"item_id": "b", "title": "Item b", "snapshot_date": "2024-03-02"}])
    new_shop.ingest("items")
    new_shop.ingest("judgments")
    assert len(new_shop.rows("judgments")) == 200


def test_a_row_that_cannot_be_read_is_counted_by_that_rule_alone(shop: Shop) -> None:
    rows = [f"u{n},i{n % 9 + 1}.0,2024-03-01T10:00:00Z,view" for n in range(30)]
    lines = ["user_id,item_id,event_time,event_type", *rows, "u1,i1,2024-03-01,view,?", "too,few", ",,,"]
    shop.put_text("events.csv", "\n".join(lines))
    report = shop.ingest()
    failed = {
        rule.rule: rule.rows_failed
        for write in report.published
        for rule in write.rules
        if rule.rows_failed and write.partition == UNDATED
    }
    assert failed == {"row_readable": 2, "row_not_empty": 1}


def test_a_warning_is_told_with_what_it_asks_for(shop: Shop) -> None:
    shop.put("items.csv", [{"item_id": str(n), "title": f"Item {n}"} for n in range(1, 10)])
    shop.ingest("items")
    good = [event(user_id=f"u{n}", item_id="1.0") for n in range(20)]
    shop.put("events.csv", [*good, event(user_id="w", item_id="1.0", event_type="stare")])
    text = "\n".join(shop.ingest().lines())
    assert "review_is_rated" not in text
    assert "20 warned of by rule item_id_is_whole. item_id is written without .0; 1029.0 is read as 1029." in text


def test_good_rows_that_stand_in_are_recorded_by_a_retry_after_a_kill(
    new_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _catalogue(new_shop, broken=30)
    with monkeypatch.context() as killed:
        killed.setattr(Ledger, "record", _raise_killed)
        with pytest.raises(KeyboardInterrupt):
            new_shop.ingest("items")
    new_shop.ingest("items")
    assert new_shop.ledger.committed("items")[UNDATED].rows_out == len(new_shop.rows("items")) == 70
    assert verify(Lake(new_shop.profile), new_shop.ledger) == []


def _raise_killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_broken_later_catalogue_leaves_the_old_one(shop: Shop) -> None:
    before = shop.rows("items")
    _catalogue(shop, broken=30)
    report = shop.ingest("items")
    assert [(stop.partition, "stand in" in stop.why) for stop in report.stopped] == [(UNDATED, False)]
    assert shop.rows("items") == before


def test_of_a_catalogue_without_a_good_row_nothing_stands_in(new_shop: Shop) -> None:
    new_shop.put("items.csv", [{"item_id": "", "title": "no id"}] * 10)
    report = new_shop.ingest("items")
    assert ([stop.partition for stop in report.stopped], report.published) == ([UNDATED], ())
