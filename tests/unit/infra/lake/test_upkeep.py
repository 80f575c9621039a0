"""Looking after the lake: verify finds what broke, expire forgets what nobody needs, the export shows what is live."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from infra.contracts import quarantine_contract
from infra.errors import PlumblineError
from infra.lake import Fault, expire, export_duckdb, publish, rollback, verify
from infra.lake.export import view_statement
from tests.lake_kit import Day, Shop, day, sales_contract

_LATER = datetime.now(UTC) + timedelta(days=40)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "it's a home")


def _faults(shop: Shop) -> list[Fault]:
    return verify(shop.lake, shop.ledger)


def test_a_sound_lake_has_no_faults(shop: Shop) -> None:
    shop.publish({day(0): Day((1,), bad=(2, 3)), day(1): Day((4,)), day(2): Day()})
    shop.publish({day(1): Day(bad=(4,))})
    assert _faults(shop) == []


def test_a_lost_a_changed_and_a_cut_file_are_each_found(shop: Shop) -> None:
    shop.publish({day(n): Day((n,)) for n in range(4)})
    paths = [Path(file.path) for file in shop.lake.files("sales")]
    paths[0].unlink()
    paths[1].write_bytes(paths[2].read_bytes())
    paths[3].write_bytes(b"PAR1")
    found = [(fault.partition, fault.what.split(":")[0]) for fault in _faults(shop)]
    assert found[:2] == [
        (day(0), "a live file is missing"),
        (day(1), "a file holds rows of another partition"),
    ]
    assert found[2][1].startswith("a live file cannot be read")
    assert len(found) == 3


def test_a_ledger_that_tells_of_another_run_is_found(shop: Shop) -> None:
    shop.publish({day(0): Day((1,)), day(1): Day((2,))})
    old = shop.lake.snapshot("sales")
    assert old is not None
    shop.publish({day(0): Day((3,)), day(2): Day((4,))})
    shop.lake.set_current("sales", old)
    whats = [fault.what for fault in _faults(shop)]
    assert "is live, the ledger tells of" in whats[0]
    assert whats[1] == "0 rows are live, the ledger tells of 1"


def test_rows_in_quarantine_of_a_run_that_was_not_completed_are_found(shop: Shop) -> None:
    shop.publish({day(0): Day((1,), bad=(2,))})
    old = shop.lake.snapshot("sales_quarantine")
    assert old is not None
    shop.publish({day(0): Day((1,), bad=(2, 3))})
    shop.lake.set_current("sales_quarantine", old)
    assert ["not completed" in fault.what for fault in _faults(shop)] == [True]


def test_expire_forgets_old_versions_but_keeps_the_current_and_the_tagged_one(shop: Shop) -> None:
    versions = [shop.publish({day(0): Day((n,), bad=(n,) * n)}).snapshot_id for n in range(4)]
    tagged, current = versions[1], versions[3]
    assert tagged is not None
    shop.lake.tag("sales", tagged, "model-next_item-v1")
    report = {e.table: e for e in expire(shop.lake, _LATER)}
    assert [v.snapshot_id for v in shop.lake.history("sales")] == [tagged, current]
    assert (shop.rows(tagged), shop.rows()) == ({day(0): (1,)}, {day(0): (3,)})
    assert report["sales"].files > 0 and report["sales"].bytes > 0
    assert _faults(shop) == []
    with pytest.raises(PlumblineError, match="no version"):
        shop.rows(versions[0])
    rollback(shop.lake, shop.ledger, "sales", tagged)
    assert (shop.rows(), shop.refused()) == ({day(0): (1,)}, {day(0): 1})
    assert _faults(shop) == []


def test_of_a_table_that_grows_the_versions_of_a_day_are_enough(tmp_path: Path) -> None:
    """There is one every few minutes, and each has the rows of those before it."""
    days = datetime.now(UTC) + timedelta(days=2)
    for grows, kept in ((False, 3), (True, 1)):
        shop = Shop(tmp_path / str(grows), replace(sales_contract(), grows=grows))
        for n in range(3):
            shop.publish({day(0): Day(tuple(range(n + 1)))})
        expire(shop.lake, days)
        assert len(shop.lake.history("sales")) == kept and shop.rows() == {day(0): (0, 1, 2)}


def test_a_tag_that_is_taken_away_protects_no_longer(shop: Shop) -> None:
    old = shop.publish({day(0): Day((1,))}).snapshot_id
    assert old is not None
    shop.publish({day(0): Day((2,))})
    shop.lake.tag("sales", old, "open-run")
    assert [v.tags for v in shop.lake.history("sales")] == [("open-run",), ()]
    shop.lake.untag("sales", "open-run")
    shop.lake.untag("sales", "open-run")
    expire(shop.lake, _LATER)
    assert len(shop.lake.history("sales")) == 1


def test_expire_leaves_the_files_of_runs_under_way_alone(shop: Shop) -> None:
    shop.publish({day(0): Day((1,))})
    attempt = shop.open({day(1): Day((2,))})
    writes = shop.stage({day(1): Day((2,))}, attempt)
    assert sum(e.files for e in expire(shop.lake)) == 0
    publish(shop.lake, shop.ledger, "sales", writes, attempt)
    assert shop.rows() == {day(0): (1,), day(1): (2,)}


def test_expire_deletes_what_a_killed_run_left_after_a_day(shop: Shop) -> None:
    attempt = shop.open({day(1): Day((2,))})
    (write,) = shop.stage({day(1): Day((2,))}, attempt)
    two_days_ago = datetime.now(UTC).timestamp() - 2 * 86_400
    os.utime(write.files[0], (two_days_ago, two_days_ago))
    scratch = Path(shop.lake.root) / "staging" / "sales-1" / "part-0"
    scratch.mkdir(parents=True)
    os.utime(scratch, (two_days_ago, two_days_ago))
    assert sum(e.files for e in expire(shop.lake)) == 1
    assert not Path(write.files[0]).exists()
    assert not scratch.exists()


def test_the_export_shows_live_rows_typed_empty_tables_and_the_ledger(shop: Shop) -> None:
    first = export_duckdb(shop.lake, shop.ledger)
    with duckdb.connect(str(first), read_only=True) as reader:
        assert reader.execute("SELECT count(*), sum(amount) FROM sales").fetchall() == [(0, None)]
        shop.publish({day(0): Day((1,)), day(1): Day((2,))})
        shop.publish({day(0): Day((5, 6), bad=(7,))})
        assert export_duckdb(shop.lake, shop.ledger) == first
        assert reader.execute("SELECT count(*) FROM sales").fetchall() == [(0,)]
    with duckdb.connect(str(first), read_only=True) as reader:
        rows = reader.execute(
            "SELECT day, sum(amount), typeof(any_value(sold_at)) FROM sales GROUP BY ALL ORDER BY day"
        )
        assert rows.fetchall() == [
            (day(0), 11, "TIMESTAMP WITH TIME ZONE"),
            (day(1), 2, "TIMESTAMP WITH TIME ZONE"),
        ]
        assert reader.execute("SELECT rule, row_json FROM sales_quarantine").fetchall() == [("amount_known", "7")]
        commits = reader.execute("SELECT commit_id, partition, rows_in, action FROM ledger_commits ORDER BY ALL")
        assert commits.fetchall() == [(1, day(0), 1, "publish"), (2, day(1), 1, "publish"), (3, day(0), 3, "publish")]
        rules = reader.execute("SELECT commit_id, rule, rows_failed FROM rule_results")
        assert rules.fetchall() == [(3, "amount_known", 1)]
    assert [path.name for path in first.parent.glob("lake.*")] == ["lake.duckdb"]


def test_a_view_over_files_from_before_a_column_was_appended_has_the_column(tmp_path: Path) -> None:
    Shop(tmp_path).publish({day(0): Day((1,))})
    grown = Shop(tmp_path, sales_contract({"name": "channel", "physicalType": "string"}))
    path = export_duckdb(grown.lake, grown.ledger)
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.execute("SELECT amount, channel FROM sales").fetchall() == [(1, None)]


def test_an_empty_view_has_the_types_of_its_contract() -> None:
    contract = quarantine_contract(sales_contract())
    with duckdb.connect() as connection:
        connection.execute(view_statement(contract, []))
        types = dict(row[:2] for row in connection.execute('DESCRIBE "sales_quarantine"').fetchall())
    assert types["day"] == "DATE"
    assert types["source_row"] == "BIGINT"
    assert tuple(types) == contract.names
