"""The marts and the page over a small lake, with the real dbt."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from infra import dbt
from infra.contracts import all_contracts
from infra.lake.export import _COMMITS, _RULES, view_statement
from infra.ledger import Ledger
from infra.profile import load_profile
from infra.report.page import write_report

METRICS = (
    "('2018-01-05', 'a', '7', 'rf_hard', 'time', 'recall@10', 0.0498, 0.0401, 0.0599, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'time', 'recall@10', 0.0519, 0.0421, 0.0618, null)",
    "('2018-01-06', 'b', '8', 'popularity', 'time', 'recall@10', 0.0353, 0.0259, 0.0456, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'training', 'place', 1, null, null, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'training', 'ndcg_before', 0.0318, null, null, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'training', 'ndcg_after', 0.0318, null, null, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'training', 'legal', 0.97, null, null, null)",
    "('2018-01-06', 'b', '8', 'rf_hard', 'training', 'stands', 0, null, null, '18 preferences, fewer than 50')",
    "('2018-01-06', 'b', '8', 'sft', 'training', 'place', 2, null, null, null)",
    "('2018-01-06', 'b', '8', 'sft', 'training', 'stands', 0, null, null, 'the shop is too small for a model')",
)
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
    Ledger(profile).landings.record_left_out("events", {"events/x.csv": f"events/x.csv is compressed.\n{EVIL}"})
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
    connection.execute("drop view items")
    connection.execute(
        """create table items as select 'shop' source, date '2018-01-04' snapshot_date, category, item_id, title, brand
           from (values ('told', 'A pen', null, 'Pens'), ('untold', ' ', 'Acme', 'Pens'))
               catalogue(item_id, title, brand, category)"""
    )
    connection.execute("drop view recommendations")
    connection.execute(
        """create table recommendations as select date '2018-01-05' run_date, user_id, model_version, rank, item_id,
               -1.0::double log_prob, if(model_version = '7', 'champion', 'challenger') as role
           from (values ('u1', '7', 1, 'i1'), ('u1', '7', 2, 'i2'), ('u2', '7', 1, 'i1'), ('u2', '7', 2, 'i2'),
                        ('u1', '8', 1, 'i2'), ('u1', '8', 2, 'i3'), ('u2', '8', 1, 'i4'), ('u2', '8', 2, 'i5'))
               lists(user_id, model_version, rank, item_id)"""
    )
    connection.execute(
        "insert into recommendations values (date '2018-01-04', 'u1', 'covisit', 1, 'i1', -1.0, 'baseline')"
    )
    connection.execute("drop view ops_model_metrics")
    connection.execute(
        f"""create table ops_model_metrics as
            select logged_date::date logged_date, run_id, 'generative_rec' system, 'evaluate' stage, model, version,
                metric, 'all' slice, split, value::double value, lo::double lo, hi::double hi, 60::bigint n,
                'real' origin, reason
            from (values {", ".join(METRICS)})
                figures(logged_date, run_id, version, model, split, metric, value, lo, hi, reason)"""
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
    lists = {**commit, "commit_id": 3, "asset": "recommendations", "rows_in": 8, "rows_out": 8, "rows_quarantined": 0}
    later = {**commit, "commit_id": 2, "partition": date(2018, 1, 6), "rows_in": 1, "rows_quarantined": 0}
    rule = {"commit_id": 1, "rule": "price_not_negative", "level": "fail", "rows_failed": 1, "status": "failed"}
    for name, rows, schema in (("ledger_commits", [commit, later, lists], _COMMITS), ("rule_results", [rule], _RULES)):
        connection.register("rows", pa.Table.from_pylist(rows, schema=schema))
        connection.execute(f"create table {name} as select * from rows")
        connection.unregister("rows")


def test_the_mart_says_what_each_partition_is_worth(site: Path) -> None:
    with duckdb.connect(str(site / "dbt" / "marts.duckdb"), read_only=True) as marts:
        rows = marts.execute(
            """select partition_date, is_balanced, rules_failed, failing_rules, lateness_hours
               from fct_partition_quality where asset = 'events' order by 1"""
        ).fetchall()
    assert rows == [
        (date(2018, 1, 5), True, 1, "price_not_negative", 6.0),
        (date(2018, 1, 6), True, 0, None, -18.0),
    ]


def test_the_page_names_rule_key_owner_and_the_csv(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "price_not_negative" in page and "data-engineering" in page
    assert 'href="quarantine/events-2018-01-05.csv"' in page


def test_the_page_names_the_landing_files_that_were_left_out(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "<code>events/x.csv</code><pre>events/x.csv is compressed." in page


def test_the_page_counts_the_items_that_the_catalogue_leaves_without_a_title(site: Path) -> None:
    (line,) = re.findall(r"<tr><td><b>shop</b>.*", (site / "report" / "index.html").read_text())
    assert re.findall(r">([^<>]+)<", line) == ["shop", "2018-01-04", "2", "0", "1", "1", "0"]


def test_a_section_with_nothing_to_show_says_so(site: Path) -> None:
    section = (site / "report" / "index.html").read_text().split('<section id="landing">')[1].split("</section>")[0]
    assert "No task of the scheduler is on record yet" in section and "<svg" not in section


def test_the_page_says_why_a_rung_was_left_out(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert re.search(r"rf_hard.*left out</span> 18 preferences, fewer than 50", page)


def test_the_page_says_why_a_stage_that_never_began_was_left_out(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    (line,) = re.findall(r"<tr><td>generative_rec</td><td>sft</td>.*", page)
    assert re.findall(r">([^<>]+)<", line)[2:] == ["real", *["-"] * 4, "left out", " the shop is too small for a model"]


def test_the_page_names_who_made_the_lists(site: Path) -> None:
    section = (site / "report" / "index.html").read_text().split('<section id="recommendations">')[1]
    assert "<td>version 7 <span" in section and re.search(r"<td>covisit <span[^>]*>baseline<", section)


def test_the_page_shows_the_headline_figure_of_earlier_evaluations(site: Path) -> None:
    history = (site / "report" / "index.html").read_text().split("Recall@10 over the last evaluations")[1]
    newest, before = [line for line in history.splitlines() if line.startswith("<tr><td")][:2]
    assert "2018-01-06" in newest and "<td>8</td>" in newest and "0.0421 to 0.0618" in newest
    assert "2018-01-05" in before and "<td>7</td>" in before and "0.0498" in before


def test_the_nightly_lists_are_told_by_day_and_version(site: Path) -> None:
    with duckdb.connect(str(site / "dbt" / "marts.duckdb"), read_only=True) as marts:
        rows = marts.execute(
            """select model_version, role, users, mean_list_length, items, items_not_in_catalogue, own_share,
                   overlap_at_10 from fct_recommendations order by 1"""
        ).fetchall()
    assert rows == [
        ("7", "champion", 2, 2.0, 2, 2, 0.25, 0.25),
        ("8", "challenger", 2, 2.0, 4, 4, 0.0, 0.25),
        ("covisit", "baseline", 1, 1.0, 1, 1, 0.0, None),
    ]
    page = (site / "report" / "index.html").read_text()
    section = page.split('<section id="recommendations">')[1].split("</section>")[0]
    assert "1 day behind the events" in section  # events of 2018-01-06 are committed, the lists are of the day before
    assert section.count("25.0 %") == 3 and section.count("2018-01-06 06:00 UTC") == 2


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
