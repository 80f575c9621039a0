"""The card says where the market is unlike real logs, and the order of rows where it turns one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import DataError
from spark_jobs.market import validity
from spark_jobs.market.__main__ import main
from spark_jobs.market.order import Interval, order_of, rows_of
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.takes import STATISTICS, Takes, measured
from spark_jobs.market.validity import (
    MARKET,
    SHOP,
    Kind,
    RealLog,
    Width,
    card,
    lived_takes,
    markdown,
    read_real_logs,
    read_takes,
)
from tests.unit.spark_jobs.market.kit import lived, world

KIND = Kind("purchase", 1, "review", "reviews", 30)
WIDTH = Width(1.5, 0.02, {"reviews": KIND})


def real(**values: float | None) -> RealLog:
    return RealLog("reviews", "real", "a shop", "none", "", 10, {**dict.fromkeys(STATISTICS), **values})


def market(**values: float | None) -> dict[str, float | None]:
    return {**dict.fromkeys(STATISTICS), **values}


def verdict(statistic: str, value: float | None, *of_shops: float | None) -> str:
    shops = {f"shop{n}": real(**{statistic: one}) for n, one in enumerate(of_shops)}
    rows = card(market(**{statistic: value}), shops, WIDTH, "hash")
    return next(row.verdict for row in rows if row.statistic == statistic and row.source == MARKET)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3.9, "outside"), (4.0, "inside"), (15.0, "inside"), (15.1, "outside"), (None, "not measured")],
)
def test_the_range_of_the_shops_is_made_wider_by_the_factor(value: float | None, expected: str) -> None:
    assert verdict("history_median", value, 6.0, 10.0, None) == expected


def test_a_share_of_none_has_room_and_no_share_passes_one() -> None:
    assert verdict("repeat_share", 0.02, 0.0) == "inside" and verdict("repeat_share", 0.03, 0.0) == "outside"
    assert WIDTH.limits("gini", [0.9]) == (pytest.approx(0.58), 1.0)


def test_without_a_shop_that_tells_there_is_no_verdict() -> None:
    assert verdict("leavers", 0.9, None, None) == "no reference"


def test_a_row_of_each_log_for_each_statistic_and_the_page_shows_them(tmp_path: Path) -> None:
    shops = {"shop": real(gini=0.5), "model": replace(real(gini=0.6), origin="simulated")}
    rows = card(market(gini=0.95), shops, WIDTH, "hash")
    assert len(rows) == 3 * len(STATISTICS)
    validity.write_card(rows, tmp_path)
    written = pq.read_table(tmp_path / "validity.parquet")
    assert written.schema.equals(validity.SCHEMA)
    own = [row for row in written.to_pylist() if row["statistic"] == "gini"]
    assert [(row["source"], row["origin"], row["verdict"]) for row in own] == [
        ("market", "simulated", "outside"),
        ("shop", "real", "reference"),
        ("model", "simulated", "reference"),
    ]
    assert own[0]["parameters_hash"] == "hash" and own[0]["low"] == pytest.approx(0.5 / 1.5 - 0.02)
    page = (tmp_path / "validity.md").read_text()
    assert page == markdown(rows)
    assert "| shop (real) | model (simulated) |" in page
    assert "| gini | 0.95 | 0.5 | 0.6 | 0.3133 | 0.92 | outside |" in page


def test_the_shipped_logs_have_all_statistics_and_a_kind() -> None:
    logs, width = read_real_logs(), Width.read()
    for log in logs.values():
        assert tuple(log.values) == tuple(STATISTICS) and log.kind in width.kinds
    assert {name for name, log in logs.items() if log.origin == "simulated"} == {"grocery"}
    assert logs["beauty"].values["gap_days_median"] is None and logs["beauty"].rows == 198_502


def write_log(folder: Path, habit: float) -> pd.DataFrame:
    """The log of a small market, as `simulate` would leave it."""
    (folder / "events").mkdir()
    events = lived(world(people__habit=habit), 300)[1]
    columns = {
        "user_id": events["user_id"].astype(str),
        "item_id": events["item_id"].astype(str),
        "event_time": pa.array(events["event_time"], pa.timestamp("us", "UTC")),
        "event_type": events["event_type"],
    }
    pq.write_table(pa.table(columns), folder / "events" / "2026-01-01.parquet")
    return events


def test_a_log_of_the_market_is_held_against_the_logs_of_its_kind(tmp_path: Path) -> None:
    """Of a shop whose customers buy everything again: no log of reviews is like that."""
    events = write_log(tmp_path, habit=6.0)
    width = replace(Width.read(), kinds={"reviews": KIND})
    rows, takes = validity.held(tmp_path, "reviews", "hash", width)
    own = {row.statistic: row for row in rows if row.source == MARKET}
    assert own["repeat_share"].verdict == "outside" and own["leavers"].verdict == "no reference"
    assert takes == (events["event_type"] == "purchase").sum()
    assert {row.source for row in rows} == {MARKET, "office", "beauty", "instruments", "amazon_grocery"}


def test_a_folder_without_a_log_and_a_log_without_such_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log of a market"):
        read_takes(tmp_path, KIND)
    (tmp_path / "events").mkdir()
    columns = {name: pa.array([], pa.string()) for name in ("user_id", "item_id", "event_time", "event_type")}
    pq.write_table(pa.table(columns), tmp_path / "events" / "2026-01-01.parquet")
    with pytest.raises(DataError, match="nothing to measure"):
        read_takes(tmp_path, KIND)


def test_a_shops_own_log_stands_beside_the_market_and_moves_no_limit() -> None:
    rows = card(market(gini=0.6), {"one": real(gini=0.5)}, WIDTH, "hash", market(gini=0.99, leavers=0.1))
    (own, shop, one) = [row for row in rows if row.statistic == "gini"]
    assert (own.low, own.high) == (shop.low, shop.high) == WIDTH.limits("gini", [0.5])
    assert (own.verdict, shop.verdict, one.verdict) == ("inside", "outside", "reference")
    assert (shop.source, shop.origin, shop.parameters_hash) == (SHOP, "as delivered", None)
    assert [row.verdict for row in rows if row.statistic == "leavers"][:2] == ["no reference"] * 2


def test_what_a_market_took_is_what_its_log_tells(tmp_path: Path) -> None:
    events = write_log(tmp_path, habit=6.0)
    found = lived_takes(world(people__habit=6.0), 300, KIND)
    assert len(found) == (events["event_type"] == "purchase").sum()
    named = found.assign(user_id=found["user_id"].astype(str), item_id=found["item_id"].astype(str))
    assert measured(Takes.of(named)) == measured(read_takes(tmp_path, KIND))


def test_each_kind_has_a_setting_that_leaves_the_catalogue_as_it_is() -> None:
    base = Parameters.read()
    for kind in Width.read().kinds.values():
        tuned = Parameters.read(setting=kind.setting)
        assert (tuned.catalogue, tuned.bids) == (base.catalogue, base.bids)


def test_a_setting_changes_what_it_names_and_the_hash() -> None:
    plain, grocer = Parameters.read(), Parameters.read(setting="grocer")
    assert plain.hash != grocer.hash != Parameters.read(setting="reviews").hash
    assert grocer.bids == plain.bids and grocer.people.tastes != plain.people.tastes
    assert grocer.people.habit_spread == plain.people.habit_spread
    with pytest.raises(DataError, match="no setting 'bazaar'") as refused:
        Parameters.read(setting="bazaar")
    assert "reviews, grocer" in str(refused.value)


def near(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01)


def test_the_order_of_rows() -> None:
    """Of the six pairs the shop holds all but text and forward apart; the market turns personal and popularity."""
    shop = {"personal": near(0.5), "forward": near(0.3), "text": near(0.295), "popularity": near(0.1)}
    same = order_of({name: near(2 * one.value) for name, one in shop.items()}, shop)
    assert same.levels == dict.fromkeys(shop, pytest.approx(2.0))
    assert (same.tau, same.apart, same.alike, same.turned) == (1.0, 5, 5, ())
    turned = order_of({**shop, "personal": near(0.05), "both": near(0.9)}, shop)
    assert turned.tau == pytest.approx(0.0) and (turned.apart, turned.alike) == (5, 2)
    assert set(turned.turned) == {("personal", "forward"), ("personal", "text"), ("personal", "popularity")}
    close = order_of({**shop, "personal": near(0.29)}, shop)
    assert close.alike == 3 and close.turned == ()  # the other way, but within chance


def test_rows_are_read_from_a_table_of_the_training_room_and_what_is_trained_is_not_compared(tmp_path: Path) -> None:
    score = {"value": 0.2, "lo": 0.1, "hi": 0.3, "n": 5}
    rows = [{"model": name, "values": {"recall@10": score}} for name in ("personal", "text", "sasrec", "ranker")]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    assert rows_of(tmp_path / "rows.json") == {
        "recall@10": dict.fromkeys(("personal", "text"), Interval(0.2, 0.1, 0.3))
    }
    (tmp_path / "other.json").write_text("[]")
    for name in ("other.json", "none.json"):
        with pytest.raises(DataError, match="cannot be read"):
            rows_of(tmp_path / name)
    with pytest.raises(DataError, match="no order to compare"):
        order_of({}, {"text": near(0.1)})


def test_the_commands_say_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path, habit=6.0)
    out = tmp_path / "card"
    given = ["validity", "--log", str(tmp_path), "--against", "purchases", "--setting", "grocer", "--out", str(out)]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert (out / "validity.md").read_text() in told
    assert f"parameters {Parameters.read(setting='grocer').hash}) against purchases: " in told
    for name, personal in (("market", 0.1), ("shop", 0.2)):
        scores = {"personal": personal, "text": 0.15}
        values = {row: dict.fromkeys(("value", "lo", "hi"), score) for row, score in scores.items()}
        rows = [{"model": row, "values": {"recall@10": one, "ndcg@10": one}} for row, one in values.items()]
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))
    assert main(["order", "--market", str(tmp_path / "market.json"), "--real", str(tmp_path / "shop.json")]) == 0
    told = capsys.readouterr().out
    assert "recall@10: Kendall's tau -1.00; 0 of 1 pairs that are apart in shop.json stand alike" in told
    assert "intervals apart: personal above text" in told
    assert "ndcg@10: a row's score on the market over that in shop.json: personal 0.50, text 1.00" in told
