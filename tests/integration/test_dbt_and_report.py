"""The marts and the page over a small lake, with the real dbt."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from infra import dbt
from infra.contracts import all_contracts
from infra.lake.export import _COMMITS, _RULES, view_statement
from infra.ledger import LandingFile, Ledger, LeftOut, Stop, named_input
from infra.profile import load_profile
from infra.report.page import write_report
from infra.report.sections import SECTIONS
from infra.report.sections.market import WORDS
from spark_jobs.market.takes import STATISTICS

METRICS = (
    "('2018-01-05', 'a', 'generative_rec', '7', 'rf_hard', 'time', 'recall@10', 0.0498, 0.0401, 0.0599, 60, 0)",
    "('2018-01-06', 'b', 'generative_rec', '8', 'rf_hard', 'time', 'recall@10', 0.0519, 0.0421, 0.0618, 45, 0)",
    "('2018-01-06', 'b', 'generative_rec', '8', 'popularity', 'time', 'recall@10', 0.0353, 0.0259, 0.0456, 60, 0)",
    "('2018-01-06', 'b', 'generative_rec', '8', 'popularity', 'time', 'mrr', 0.0123, null, null, 60, null)",
    # A system that is not built yet: no gate file knows of it, and no code of the page.
    "('2018-01-06', 'c', 'query_rec', null, 'judge', 'held_out', 'macro_f1', 0.6712, 0.6511, 0.6902, null, null)",
    "('2018-01-06', 'c', 'query_rec', null, 'judge', 'held_out', 'accuracy', 0.8001, 0.7811, 0.8202, null, null)",
)
# What the stages of the judge say of themselves: the newest run of each stage alone is told.
TAUGHT = (
    ("2018-01-04", "j", "teach", "training", "kappa.profile.people", 0.1),
    ("2018-01-05", "k", "teach", "training", "kappa.profile.teacher", 0.41),
    ("2018-01-05", "k", "teach", "training", "kappa.profile.teacher.weighted", 0.5),
    ("2018-01-05", "k", "teach", "training", "kappa.profile.teacher.n", 1200),
    ("2018-01-05", "l", "evaluate", "time", "routed", 0.25),
)
GATES = (
    "('e', 'generative_rec', '2018-01-06-ff', 'sp_easy', true, '', '436 preferences', 'ndcg@10', 0.03, 0.0318, 0.0321)",
    "('f', 'generative_rec', '2018-01-06-ff', 'rf_hard', false, '18 preferences, fewer than 50', '', 'ndcg@10', 0.03,"
    " 0.0321, 0.0321)",
    "('g', 'generative_rec', '2018-01-06-ff', 'sft', false, 'the shop is too small for a model', '', null, null, null,"
    " null)",
    "('h', 'generative_rec', '2018-01-05-aa', 'gone', true, 'an older run', '', null, null, null, null)",
    "('i', 'query_rec', '2018-01-02-aa', 'rewriter', true, '', '', 'macro_f1', 0.61, 0.62, 0.63)",
)
EVIL = "<script>alert(1)</script>"
CARD = (
    "('reviews', 'gini', 'market', 'simulated', 0.45, 0.3, 0.9, 'inside', 17000)",
    "('reviews', 'gini', 'shop', 'as delivered', 0.95, 0.3, 0.9, 'outside', 20000)",
    "('reviews', 'gini', 'one', 'real', 0.5, null, null, 'reference', 10)",
    "('reviews', 'gini', 'other', 'real', 0.6, null, null, 'reference', 10)",
    "('reviews', 'repeat_share', 'market', 'simulated', 0.72, 0, 0.03, 'outside', 17000)",
    "('reviews', 'repeat_share', 'shop', 'as delivered', 0.005, 0, 0.03, 'inside', 20000)",
    "('reviews', 'repeat_share', 'one', 'real', 0.005, null, null, 'reference', 10)",
    "('reviews', 'repeat_share', 'other', 'real', null, null, null, 'reference', 10)",
    "('reviews', 'leavers', 'market', 'simulated', 0.5, null, null, 'no reference', 17000)",
    "('reviews', 'leavers', 'shop', 'as delivered', null, null, null, 'no reference', 20000)",
    "('reviews', 'leavers', 'one', 'real', null, null, null, 'reference', 10)",
)


# Nights of judge 9: the first is withheld, the second is the week before the third.
SCORED = (
    "('2018-01-03', 'u1', 'i1', '7', 'champion', 1, null, 'withheld', null)",
    "('2018-01-04', 'u1', 'i1', '7', 'champion', 1, 0.3, null, null)",
    f"('2018-01-05', 'u1', 'i2', '7', 'champion', 1, 0.4, null, 'profile: fits; {EVIL}')",
    "('2018-01-05', 'u1', 'i1', '7', 'champion', 2, 0.3, null, 'profile: neutral')",
    "('2018-01-05', 'u1', 'i2', '8', 'challenger', 1, 0.1, null, null)",
    "('2018-01-05', 'u1', 'i3', '8', 'challenger', 2, null, 'not_in_catalogue', null)",
)
HELD_TO = (
    f"('2018-01-03', 'coverage', 'night', 0.5, 0.95, false, 'too few rows: {EVIL}', 'real')",
    "('2018-01-04', 'agreement', 'gold', 0.62, 0.58, true, null, 'simulated')",
    "('2018-01-05', 'agreement', 'gold', 0.62, 0.58, true, null, 'simulated')",
    "('2018-01-05', 'coverage', 'night', 0.75, 0.5, true, null, 'real')",
)


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
    ledger = Ledger(profile)
    landings = ledger.landings
    landings.record_left_out("events", [LeftOut("events", "events/x.csv", f"events/x.csv is compressed.\n{EVIL}")])
    landings.record("events", [LandingFile("events/y.csv", "hash", 7, {date(2018, 2, 1): 3, date(2018, 2, 3): 4})])
    landings.record("intents", [LandingFile("intents.csv", "hash", 5, {date(2018, 2, 1): 5})])
    stop = Stop(date(2018, 2, 3), "key", "2 of 4 rows are bad", "judge", (named_input("events/y.csv", "hash"),))
    ledger.stops.replace("events", [stop.day], [stop])
    ledger.stops.replace("items", [date(2018, 1, 4)], [Stop(date(2018, 1, 4), "key", f"3 of 4 rows are bad {EVIL}")])
    write_report(profile, views)
    return home


def _fill_judge(connection: duckdb.DuckDBPyConnection) -> None:
    for name in ("judge_scores", "judge_checks", "judge_means"):
        connection.execute(f"drop view {name}")
    connection.execute(
        f"""create table judge_scores as
            select run_date::date run_date, user_id, item_id, model_version, '9' judge_version, role, rank::bigint rank,
                3::bigint history_length, score::double profile, score::double future, score::double novelty,
                null::double context, 0.5::double weight_profile, 0.25::double weight_future,
                0.25::double weight_novelty, null::double weight_context, score::double score, failure, reason
            from (values {", ".join(SCORED)})
                scored(run_date, user_id, item_id, model_version, role, rank, score, failure, reason)"""
    )
    connection.execute(
        f"""create table judge_checks as
            select run_date::date run_date, '9' judge_version, check_name, measured_on, value::double "value",
                lower::double "lower", null::double "upper", passed, why, origin
            from (values {", ".join(HELD_TO)})
                held(run_date, check_name, measured_on, value, lower, passed, why, origin)"""
    )
    connection.execute(
        """create table judge_means as
            select date '2018-01-05' run_date, '9' judge_version, model_version, aspect, role, 2::bigint submitted,
                scored::bigint scored, false withheld, raw::double raw, (raw - 0.05)::double corrected,
                (raw - 0.1)::double lo, raw::double hi, 80::bigint gold_cases
            from (values ('7', 'profile', 'champion', 2, 0.3), ('7', 'score', 'champion', 2, 0.2),
                         ('8', 'profile', 'challenger', 1, 0.1), ('8', 'score', 'challenger', 1, 0.1))
                means(model_version, aspect, role, scored, raw)"""
    )


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
        f"""create table items as select source, date '2018-01-04' snapshot_date, category, item_id, title, brand
           from (values ('shop', 'told', 'A pen', null, 'Pens'), ('shop', 'untold', ' ', 'Acme', 'Pens'),
                        ('market', 'i2', 'Ink {EVIL}', 'Acme', 'Inks {EVIL}'))
               catalogue(source, item_id, title, brand, category)"""
    )
    connection.execute("drop view recommendations")
    connection.execute(
        f"""create table recommendations as select date '2018-01-05' run_date, user_id, model_version,
               rank::bigint as rank, item_id,
               -1.0::double log_prob, if(model_version = '7', 'champion', 'challenger') as role,
               ['forward', '{EVIL}'] as reasons, [1.25::double, 0.5::double] as reason_scores
           from (values ('u1', '7', 1, 'i1'), ('u1', '7', 2, 'i2'), ('u2', '7', 1, 'i1'), ('u2', '7', 2, 'i2'),
                        ('u1', '8', 1, 'i2'), ('u1', '8', 2, 'i3'), ('u2', '8', 1, 'i4'), ('u2', '8', 2, 'i5'))
               lists(user_id, model_version, rank, item_id)"""
    )
    connection.execute(
        "insert into recommendations values (date '2018-01-04', 'u1', 'forward', 1, 'i1', -1.0, 'baseline', [], [])"
    )
    connection.execute("drop view market_replay")
    connection.execute(
        f"""create table market_replay as
            select date '2018-01-05' run_date, model_version, metric, role, 60::bigint people, 10::integer as days,
                value::double "value", 1.0::double random, 5.0::double oracle, (value::double - 1) / 4 closed, against,
                difference::double difference, lo::double lo, hi::double hi, 'abc' parameters_hash, 7::bigint seed
            from (values ('7', 'clicks', 'champion', 2, null, null, null, null),
                         ('{EVIL}', 'clicks', 'challenger', 3, '7', 1, 0.5, 1.5),
                         ('{EVIL}', 'leavers', 'challenger', 3, '7', 1, 0.5, 1.5))
                played(model_version, metric, role, value, against, difference, lo, hi)"""
    )
    connection.execute("drop view market_validity")
    connection.execute(
        f"""create table market_validity as
            select date '2018-01-05' run_date, setting, statistic, source, 'reviews' kind, origin,
                value::double as "value", low::double low, high::double high, verdict, takes::bigint takes,
                if(source = 'market', 'def', null) parameters_hash, if(source = 'market', 7, null)::bigint seed
            from (values {", ".join(CARD)})
                card(setting, statistic, source, origin, value, low, high, verdict, takes)"""
    )
    _fill_judge(connection)
    connection.execute("drop view trigger_queries")
    connection.execute(
        f"""create table trigger_queries as
            select index_date::date index_date, kind, trigger, place::bigint place, query, 0.5::double score,
                0.5::double relevance, 0.5::double worth, 1::bigint people, '{EVIL}' model_version, '8' ranker_version
            from (values ('2018-01-02', 'item', 'i1', 1, 'ink'), ('2018-01-05', 'item', 'i1', 1, 'ink'),
                         ('2018-01-05', 'item', 'i1', 2, 'pens'), ('2018-01-05', 'search', 'ink', 1, 'pens'))
                index(index_date, kind, trigger, place, query)"""
    )
    connection.execute("drop view ops_promotions")
    connection.execute(
        """create table ops_promotions as
            select date '2018-01-06' decided_date, decision_id::bigint decision_id, now() as "at", 'flag' who,
                'generative_rec' model, null::varchar from_version, version to_version, decision, false as override,
                'so' reason, gate_passed, market::varchar market
            from (values (1, '7', 'promote', true, 'not played yet'), (2, '8', 'reject', false, 'failed'),
                         (3, '6', 'reject', true, null)) made(decision_id, version, decision, gate_passed, market)"""
    )
    connection.execute("drop view ops_model_metrics")
    connection.execute(
        f"""create table ops_model_metrics as
            select logged_date::date logged_date, run_id, system, 'evaluate' stage, model, version::varchar as version,
                metric, 'all' slice, split, value::double value, lo::double lo, hi::double hi, 60::bigint n,
                scored::bigint scored, 'real' origin, null::varchar reason, shown::bigint shown
            from (values {", ".join(METRICS)})
                figures(logged_date, run_id, system, version, model, split, metric, value, lo, hi, scored, shown)"""
    )
    connection.executemany(
        """insert into ops_model_metrics
            select $1, $2, 'semantic_judge', $3, 'routed', null, $5, 'all', $4, $6, null, null, 60, null, 'simulated',
                null, null""",
        TAUGHT,
    )
    connection.execute("drop view stage_gates")
    connection.execute(
        f"""create table stage_gates as
            select date '2018-01-06' logged_date, run_id, system, run, stage,
                (run[:10]::date + to_seconds(ascii(run_id)))::timestamptz finished_at, accepted, reason, note,
                metric::varchar metric,
                start::double as start, before::double as before, after::double as after, null::double as lower,
                'real' origin
            from (values {", ".join(GATES)})
                gates(run_id, system, run, stage, accepted, reason, note, metric, start, before, after)"""
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
    warning = {**rule, "rule": "short_title", "level": "warn"}
    rules = [rule, warning, {**warning, "commit_id": 2}]
    aside = {**commit, "commit_id": 4, "partition": date(2018, 1, 3), "rows_in": 1, "rows_out": 0}
    also = {**aside, "commit_id": 5, "partition": date(2018, 1, 4)}
    unknown = {**rule, "rule": "item_known", "level": "drop"}
    rules += [{**unknown, "commit_id": 4}, {**unknown, "commit_id": 5}]
    untold = {**aside, "commit_id": 6, "partition": date(2018, 1, 2)}  # no rule is on record
    commits = [commit, later, lists, aside, also, untold]
    for name, rows, schema in (("ledger_commits", commits, _COMMITS), ("rule_results", rules, _RULES)):
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
        (date(2018, 1, 2), True, 0, None, 78.0),
        (date(2018, 1, 3), True, 0, "item_known (set aside)", 54.0),
        (date(2018, 1, 4), True, 0, "item_known (set aside)", 30.0),
        (date(2018, 1, 5), True, 1, "price_not_negative (quarantine), short_title (warn)", 6.0),
        (date(2018, 1, 6), True, 0, "short_title (warn)", -18.0),
    ]


def test_the_page_tells_of_each_broken_rule_once_and_of_causes_before_what_follows_from_them(site: Path) -> None:
    broken = [row for row in rows_of(site, "failures") if row[:2] == ["events", "real"]]
    assert [row[3:7] for row in broken] == [
        ["-", "quarantine", "1", "2018-01-02, 1 of 1 row"],
        ["price_not_negative", "quarantine", "1", "2018-01-05, 1 of 2 rows, all keys (CSV)"],
        ["item_known", "set aside", "2", "2, 2018-01-03 to 2018-01-04 2018-01-04, 1 of 1 row 2018-01-03, 1 of 1 row"],
        [
            "short_title",
            "warn",
            "2",
            "2, 2018-01-05 to 2018-01-06 2018-01-06, 1 of 1 row 2018-01-05, 1 of 2 rows, all keys (CSV)",
        ],
    ]
    (events,) = [row for row in rows_of(site, "quality") if row and row[0].startswith("events ")]
    assert events[7].startswith("4 with failures")


def test_the_page_names_rule_key_owner_and_the_csv(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "price_not_negative" in page and "data-engineering" in page
    assert 'href="quarantine/events-2018-01-05.csv"' in page


def test_the_page_names_the_landing_files_that_were_left_out(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "<code>events/x.csv</code><pre>events/x.csv is compressed." in page


def test_the_page_names_the_days_that_are_not_as_delivered_with_the_rule_and_the_files(site: Path) -> None:
    days = (
        "2, 2018-02-01 to 2018-02-03 2018-02-03, 4 records: 2 of 4 rows are bad (events/y.csv) "
        "2018-02-01, 3 records: no run has come to events/y.csv"
    )
    rows = rows_of(site, "failures")
    assert ["events", "nothing", "7", days] in rows
    assert ["intents", "nothing", "5", "2018-02-01, 5 records: no run has come to intents.csv"] in rows


def test_the_page_counts_the_items_that_the_catalogue_leaves_without_a_title(site: Path) -> None:
    assert ["shop", "2018-01-04", "2", "0", "1", "1", "0"] in rows_of(site, "catalogue")


def test_the_page_shows_users_what_they_did_what_they_get_and_why(site: Path) -> None:
    rows = rows_of(site, "lists")
    assert ["2018-01-05", "i1"] in rows  # what u1 did: an item that the catalogue does not have goes by its id
    assert ["1", "i1 own", "36.8 %", f"forward +1.25 , {html.escape(EVIL)} +0.50"] in rows
    page = (site / "report" / "index.html").read_text()
    assert "<code>u1</code> 1 event; the list by" in page and "Users with one or two events" in page


def test_the_page_says_how_much_each_index_of_queries_knows_how_old_it_is_and_how_much_is_new(site: Path) -> None:
    version = f"version {html.escape(EVIL)} chances by ranker 8"
    assert rows_of(site, "trigger_queries")[1:] == [
        ["2018-01-05 newest day of events", version, "1", "1", "2", *["100.0 % of 1"] * 2, "66.7 % in 3 days", "-"],
        ["2018-01-02", version, "1", "0", "1", "- of 0", "- of 0", "-", "-"],
    ]


def test_the_page_says_what_the_judge_says_why_a_night_is_withheld_and_how_it_drifts(site: Path) -> None:
    rows = rows_of(site, "judge")
    assert [
        "agreement share of held-out pairs in the order of their outcome",
        "gold simulated",
        "0.62",
        "0.58",
        "",
        "passed",
    ] in rows
    assert [row[1:4] for row in rows if len(row) == 6 and row[1] == "score"] == [
        ["score", "+0.200", "+0.150 +0.100 to +0.200"],
        ["score", "+0.100", "+0.050 +0.000 to +0.100"],
    ]
    assert ["version 7 champion", "all", "+0.350", "+0.050", "+1.000", "2 of 2"] in rows
    assert ["version 8 challenger", "all", "-0.450", "", "", "1 of 2"] in rows
    assert ["1", html.escape(f"Ink {EVIL}"), "+0.400", html.escape(f"profile: fits; {EVIL}")] in rows
    assert [[row[0], *row[2:]] for row in rows if len(row) == 4 and "%" in row[2]] == [
        ["version 7 champion", "0.2 to 0.4: 50.0 %, 0.4 to 0.6: 50.0 %", "2"],
        ["version 8 challenger", "0.0 to 0.2: 100.0 %", "1"],
    ]
    assert [row for row in rows if {"people", "teacher and people"} & {*row[:1]}] == [
        ["teacher and people", "profile", "+0.410", "+0.500", "1,200"]
    ]
    section = (site / "report" / "index.html").read_text().split('<section id="judge">')[1].split("</section>")[0]
    assert "25.0 % of 60 cases" in section and section.count('aria-label="share of scores by bin"') == 2
    assert "2018-01-03" in section and html.escape(f"too few rows: {EVIL}") in section and EVIL not in section
    assert "are withheld:" not in section  # the newest night is not
    with duckdb.connect(str(site / "dbt" / "marts.duckdb"), read_only=True) as marts:
        nights = marts.execute(
            """select run_date, withheld, score from fct_judge_scores
                where slice = 'all' and model_version = '7' order by 1"""
        ).fetchall()
    assert [(str(day), withheld, None if score is None else round(score, 6)) for day, withheld, score in nights] == [
        ("2018-01-03", True, None),
        ("2018-01-04", False, 0.3),
        ("2018-01-05", False, 0.35),
    ]


def test_the_page_shows_what_the_lists_would_do_in_the_market(site: Path) -> None:
    rows = rows_of(site, "market")
    version = f"version {html.escape(EVIL)} challenger"
    assert ["version 7 champion", "clicks", "2.0000", "1.0000", "5.0000", "25.0 %", "", ""] in rows
    change = "1.0000 0.5000 to 1.5000"
    assert [version, "clicks", "3.0000", "1.0000", "5.0000", "50.0 %", change, "better than 7"] in rows
    assert [version, "leavers", "3.0000", "1.0000", "5.0000", "50.0 %", change, "worse than 7"] in rows
    page = (site / "report" / "index.html").read_text()
    section = page.split('<section id="market">')[1].split("</section>")[0]
    assert "simulated" in section and "Nobody of them is real" in section


def test_the_page_shows_where_the_market_is_unlike_real_logs_before_where_it_is_like_them(site: Path) -> None:
    lines = [row for row in rows_of(site, "market") if row and row[0].split()[0] in WORDS]
    assert [line[0].split()[0] for line in lines] == ["repeat_share", "gini", "leavers"]
    assert lines[0][1:] == [
        *("0.72 outside", "0.005 inside"),
        "0.005 to 0.005 of 1 log; like them: 0 to 0.03",
    ]
    assert lines[1][1:] == [
        *("0.45 inside", "0.95 outside"),
        "0.5 to 0.6 of 2 logs; like them: 0.3 to 0.9",
    ]
    assert lines[2][1:] == ["0.5 no reference", "no reference", "none tells"]
    page = (site / "report" / "index.html").read_text()
    section = " ".join(page.split('<section id="market">')[1].split("</section>")[0].split())
    assert "span (one, real; other, real)" in section
    assert "What the market cannot tell" in section and "17,000 takes, parameters <code>def</code>" in section


def test_the_page_says_of_each_decision_what_the_market_said_and_that_it_is_simulated(site: Path) -> None:
    gates = {row[3]: row[5] for row in rows_of(site, "promotions") if row}
    assert gates == {
        "none → 7": "passed market simulated not played yet",
        "none → 8": "failed market simulated failed",
        "none → 6": "passed",
    }


def test_a_section_with_nothing_to_show_says_so(site: Path) -> None:
    section = (site / "report" / "index.html").read_text().split('<section id="landing">')[1].split("</section>")[0]
    assert "No task of the scheduler is on record yet" in section and "<svg" not in section


def test_each_statistic_of_the_card_has_words() -> None:
    assert list(WORDS) == list(STATISTICS)


def rows_of(site: Path, section: str) -> list[list[str]]:
    """The cells of each row of a section of the page, as text."""
    page = (site / "report" / "index.html").read_text()
    part = page.split(f'<section id="{section}">')[1].split("</section>")[0]
    lines = (
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    )
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in line] for line in lines]


def test_the_page_says_which_stages_were_accepted_and_why_others_were_left_out(site: Path) -> None:
    rows = rows_of(site, "stage_gates")
    assert [
        "generative_rec",
        "sp_easy",
        "real",
        "ndcg@10",
        "0.0300",
        "0.0318",
        "0.0321",
        "-",
        "accepted 436 preferences",
    ] in rows
    (stage,) = [row for row in rows if "rf_hard" in row]
    assert stage[-1] == "left out 18 preferences, fewer than 50"
    (never,) = [row for row in rows if "sft" in row]
    assert never[2:] == ["real", *["-"] * 5, "left out the shop is too small for a model"]
    assert not [row for row in rows if "gone" in row]  # of the run before


def test_a_system_that_is_not_built_yet_stands_on_the_page_from_what_its_tables_say(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    (title,) = re.findall(r"<h3>\s*(query_rec.*?)</h3>", page, re.DOTALL)
    assert "query_rec, held out split" in title
    assert ["judge", "0.8001 0.7811 to 0.8202", "0.6712 0.6511 to 0.6902"] in rows_of(site, "models")
    assert ["query_rec", "rewriter", "real", "macro_f1", "0.6100", "0.6200", "0.6300", "-", "accepted"] in rows_of(
        site, "stage_gates"
    )


def test_the_page_shows_the_metrics_of_the_gate_file_and_what_a_mean_is_of_where_samples_failed(site: Path) -> None:
    rows = rows_of(site, "models")
    assert ["rf_hard", "0.0519 0.0421 to 0.0618 45 of 60 scored"] in rows
    assert ["popularity", "0.0353 0.0259 to 0.0456"] in rows
    assert not [row for row in rows if any("0.0123" in cell for cell in row)]


def test_the_page_names_who_made_the_lists(site: Path) -> None:
    makers = [row[1] for row in rows_of(site, "recommendations") if row]
    assert "version 7 champion" in makers and "forward baseline" in makers


def test_the_page_shows_the_headline_figure_of_earlier_evaluations(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert "recall@10 over the last evaluations" in page
    newest, before = [row for row in rows_of(site, "models") if row and row[0].startswith("2018-01")]
    assert newest[:4] == ["2018-01-06", "8", "60", "0.0519 0.0421 to 0.0618 45 of 60 scored"]
    assert before[:4] == ["2018-01-05", "7", "60", "0.0498 0.0401 to 0.0599"]


def test_the_navigation_names_the_sections_in_the_order_of_the_page(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    named = re.findall(r'<a href="#(\w+)">', page.split("</nav>")[0])
    assert named == re.findall(r'<section id="(\w+)">', page) == [name for name in SECTIONS if name != "totals"]


def test_the_nightly_lists_are_told_by_day_and_version(site: Path) -> None:
    with duckdb.connect(str(site / "dbt" / "marts.duckdb"), read_only=True) as marts:
        rows = marts.execute(
            """select model_version, role, users, mean_list_length, items, items_not_in_catalogue, own_share,
                   overlap_at_10 from fct_recommendations order by 1"""
        ).fetchall()
    assert rows == [
        ("7", "champion", 2, 2.0, 2, 1, 0.25, 0.25),
        ("8", "challenger", 2, 2.0, 4, 3, 0.0, 0.25),
        ("forward", "baseline", 1, 1.0, 1, 1, 0.0, None),
    ]
    page = (site / "report" / "index.html").read_text()
    section = page.split('<section id="recommendations">')[1].split("</section>")[0]
    assert "1 day behind the events" in section  # events of 2018-01-06 are committed, the lists are of the day before
    assert section.count("25.0 %") == 3 and section.count("2018-01-06 06:00 UTC") == 2


def test_text_from_users_is_escaped(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert EVIL not in page and "&lt;script&gt;" in page
    lists = page.split('<section id="lists">')[1].split("</section>")[0]
    assert lists.count("&lt;script&gt;") >= 4  # a reason of each item
    assert html.escape(f"Ink {EVIL}") in lists  # a title


def test_the_page_needs_no_network(site: Path) -> None:
    page = (site / "report" / "index.html").read_text()
    assert 'src="http' not in page and "@import" not in page and '<link rel="stylesheet"' not in page


def test_the_dbt_docs_are_one_file(site: Path) -> None:
    assert (site / "report" / "dbt" / "index.html").stat().st_size > 100_000


def test_the_sources_file_is_what_the_contracts_say() -> None:
    assert dbt.SOURCES.read_text() == dbt.render_sources(), "run: python -m infra.dbt sources"
