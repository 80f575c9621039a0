"""The marts and the page over a small lake, with the real dbt."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from infra import dbt
from infra.contracts import all_contracts
from infra.lake.export import _COMMITS, _RULES, view_statement
from infra.profile import load_profile
from infra.report.page import write_report

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("site") / "home with space"
    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(home)})
    views = home / "lake" / "lake.duckdb"
    views.parent.mkdir(parents=True)
    with duckdb.connect(str(views)) as connection:
        _fill(connection)
    dbt.build(profile, views)
    csv = home / "report" / "quarantine"
    csv.mkdir(parents=True)
    (csv / "events-2018-01-05.csv").write_text("rule,key\n")
    write_report(profile, views)
    return home


def _fill(connection: duckdb.DuckDBPyConnection) -> None:
    import pyarrow as pa

    for contract in all_contracts().values():
        connection.execute(view_statement(contract, []))
    connection.execute("drop view events")
    connection.execute(
        """create table events as select 'u1' user_id, 'i1' item_id, date '2018-01-05' event_date, 'review' event_type,
           4.0::double rating, now() event_time, null::double price"""
    )
    connection.execute(
        """create table events_quarantine as
           select ? rule, ? key_json, 'a.csv' source_file, 3 source_row, date '2018-01-05' event_date""",
        ["price_not_negative", json.dumps({"user_id": EVIL})],
    )
    moment = datetime(2018, 1, 6, 6, tzinfo=UTC)
    commit = {
        "commit_id": 1,
        "asset": "events",
        "partition": date(2018, 1, 5),
        "run_key": "k",
        "action": "publish",
        "rows_in": 2,
        "rows_out": 1,
        "rows_quarantined": 1,
        "started": moment,
        "committed": moment,
    }
    later = {**commit, "commit_id": 2, "partition": date(2018, 1, 6), "rows_in": 1, "rows_quarantined": 0}
    rule = {"commit_id": 1, "rule": "price_not_negative", "level": "fail", "rows_failed": 1, "status": "failed"}
    for name, rows, schema in (("ledger_commits", [commit, later], _COMMITS), ("rule_results", [rule], _RULES)):
        connection.register("rows", pa.Table.from_pylist(rows, schema=schema))
        connection.execute(f"create table {name} as select * from rows")
        connection.unregister("rows")


def test_the_mart_says_what_each_partition_is_worth(site: Path) -> None:
    with duckdb.connect(str(site / "dbt" / "marts.duckdb"), read_only=True) as marts:
        rows = marts.execute(
            """select partition_date, is_balanced, rules_failed, failing_rules, lateness_hours
               from fct_partition_quality order by 1"""
        ).fetchall()
    assert rows == [
        (date(2018, 1, 5), True, 1, "price_not_negative", 6.0),
        (date(2018, 1, 6), True, 0, None, -18.0),
    ]


def test_the_page_names_rule_key_owner_and_the_csv(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "price_not_negative" in page and "data-engineering" in page
    assert 'href="quarantine/events-2018-01-05.csv"' in page


def test_text_from_users_is_escaped(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert EVIL not in page and "&lt;script&gt;" in page


def test_the_page_needs_no_network(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert 'src="http' not in page and "@import" not in page and '<link rel="stylesheet"' not in page


def test_the_dbt_docs_are_one_file(site: Path) -> None:
    assert (site / "report" / "dbt" / "index.html").stat().st_size > 100_000


def test_the_sources_file_is_what_the_contracts_say() -> None:
    assert dbt.SOURCES.read_text() == dbt.render_sources(), "run: python -m infra.dbt sources"
