"""The market through Spark: the same seed gives the same bytes at any parallelism; its log lands as a shop's does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from common.truth import is_truth
from infra.errors import DataError
from infra.lake import Lake
from spark_jobs.market import simulate as simulation
from spark_jobs.market.desk import Desk
from spark_jobs.market.known import intents, queries, utterances
from spark_jobs.market.menu import Menu
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate
from spark_jobs.market.written import LOGS
from tests.landing_kit import Shop as Landing
from tests.unit.spark_jobs.market.kit import items, parameters, with_desk
from tests.unit.spark_jobs.market.kit import utterances as wordings

FIRST = date(2026, 1, 1)


def ordered(folder: Path, rows: int = 4_000, seed: int = 7) -> Order:
    return Order(rows, seed, FIRST, 10, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_the_same_seed_gives_the_same_bytes_at_any_parallelism(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, desk = Shop.of(items(), parameters(), 7), with_desk().desk
    done = simulate(spark, shop, parameters(), ordered(tmp_path / "one"), desk)
    monkeypatch.setattr(simulation, "BLOCK", 13)
    again = simulate(spark, shop, parameters(), ordered(tmp_path / "many"), desk)
    assert again == done and contents(tmp_path / "many") == contents(tmp_path / "one")
    assert set(done.rows) == set(LOGS)
    assert 3_000 < sum(rows for table, rows in done.rows.items() if not is_truth(table)) < 5_000
    other = simulate(spark, Shop.of(items(), parameters(), 8), parameters(), ordered(tmp_path / "other", seed=8))
    assert other != done


def test_its_log_goes_through_the_ingest_and_nothing_is_refused(new_shop: Landing, spark: SparkSession) -> None:
    asked = ("pen model3", "pen size1", "лампа")
    shop, own = Shop.of(items(), parameters(), 7, asked), parameters()
    done = simulate(spark, shop, own, ordered(new_shop.profile.landing, 10_000), with_desk().desk)
    assert done.queries == 2 and min(done.rows.values()) > 0
    new_shop.put("items/items.csv", items().to_dict("records"))
    for table in ("items", *done.rows):
        report = new_shop.ingest(table)
        assert report.exit_code == 0, report.lines()
        assert sum(write.rows_quarantined for write in report.published) == 0
    lake = Lake(new_shop.profile)
    assert done.rows["chats"] == done.rows["true_chats"] > 50
    assert {row["message"] for row in new_shop.rows("chats")} <= set(wordings()["text"])
    for table, rows in done.rows.items():
        assert sum(pq.read_metadata(file.path).num_rows for file in lake.files(table)) == rows
    assert {lake.contract(table).origin for table in done.rows if table != "events"} == {"simulated"}
    hints, searches = new_shop.rows("hint_exposures"), new_shop.rows("searches")
    assert {row["source"] for row in searches} == {"hint", "typed"} and {row["position"] for row in hints} == {1, 2, 3}
    shown = {(row["request_id"], row["query"]) for row in hints}
    assert {(row["request_id"], row["query"]) for row in searches if row["source"] == "hint"} <= shown
    assert set(asked[:2]) & {row["query"] for row in searches} and "лампа" not in {row["query"] for row in hints}


def test_rows_that_land_late_or_twice_end_as_the_same_events(
    new_shop: Landing, spark: SparkSession, tmp_path: Path
) -> None:
    """What was delivered is what came out and what was quarantined, as copies and nothing else."""
    landing = new_shop.profile.landing
    shop, events = Shop.of(items(), parameters(), 7), {}
    for name, own in (("plain", parameters()), ("late", parameters(landing__late=0.2, landing__twice=0.1))):
        done = simulate(spark, shop, own, ordered(tmp_path / name, 3_000))
        files = sorted((tmp_path / name / "events").iterdir())
        events[name] = pa.concat_tables([pq.read_table(file) for file in files]).to_pandas()
        assert done.rows["events"] == len(events[name])
    assert len(events["late"]) > len(events["plain"])
    (tmp_path / "late" / "events").rename(landing / "events")
    new_shop.put("items/items.csv", items().to_dict("records"))
    new_shop.ingest("items")
    report = new_shop.ingest("events")
    assert report.exit_code == 0, report.lines()
    kept, refused = pd.DataFrame(new_shop.rows()), new_shop.refused()
    assert set(refused.values()) == {"exact_copy"}
    assert len(kept) + len(refused) == len(events["late"])
    key = ["user_id", "item_id", "event_time", "event_type"]
    same = [frame[key].sort_values(key, ignore_index=True).astype(str) for frame in (kept, events["plain"])]
    pd.testing.assert_frame_equal(*same)


def test_people_ask_in_the_wordings_of_the_newest_delivery(new_shop: Landing) -> None:
    lake, own = Lake(new_shop.profile), parameters().chats
    assert Desk.of(utterances(lake), own).told().startswith("no chats")
    old, new = ({"source": "shop", "category": "c", "valid_date": f"2026-01-0{day}"} for day in (1, 2))
    rows = [
        {**old, "text_id": "a", "kind": "utterance", "intent": "get_refund", "text": "long ago"},
        {**new, "text_id": "b", "kind": "utterance", "intent": "track_order", "text": "where is it?"},
        {**new, "text_id": "c", "kind": "guideline", "intent": "get_refund", "text": "Be polite."},
    ]
    new_shop.put("intents/desk.jsonl", rows)
    assert new_shop.ingest("intents").exit_code == 0
    desk = Desk.of(utterances(lake), own)
    assert (desk.intents, desk.wordings) == (("track_order",), ("where is it?",))
    assert "get_refund" in desk.unknown and "track_order" not in desk.unknown
    assert Menu.of(intents(lake), desk).intents == ("get_refund", "track_order")  # guidelines may be shown, too


def test_a_list_of_impossible_chances_is_refused_row_by_row(new_shop: Landing) -> None:
    good = {
        "request_id": "r1", "user_id": "u1", "item_id": "i1", "exposure_time": "2026-01-01T10:00:00Z", "position": "1",
        "policy_version": "p", "item_chance": "0.5", "list_chance": "0.1", "bid": "0",
    }  # fmt: skip
    bad = [
        ("item_chance_in_range", {"item_chance": "1.5"}),
        ("list_chance_in_range", {"list_chance": "0.6"}),
        ("position_from_one", {"position": "0"}),
        ("position_is_long", {"position": "1.5"}),
        ("position_is_long", {"position": "9" * 30}),
        ("position_is_long", {"position": "first"}),
        ("bid_not_negative", {"bid": "-1"}),
        ("item_known", {"item_id": "i404"}),
    ]
    rows = [{**good, "request_id": f"r{n}"} for n in range(200)]
    new_shop.put("items/items.csv", [{"item_id": "i1", "title": "A pen"}, {"item_id": "i2", "title": "Ink"}])
    odd = [{**good, "request_id": f"odd{n}", **change} for n, (_, change) in enumerate(bad)]
    new_shop.put("exposures/day.csv", [*rows, *odd, {**good, "request_id": "float", "position": "3.0"}])
    new_shop.ingest("items")
    report = new_shop.ingest("exposures")
    assert report.exit_code == 0
    assert Counter(new_shop.refused("exposures").values()) == Counter(rule for rule, _ in bad)
    assert [row["position"] for row in new_shop.rows("exposures") if row["request_id"] == "float"] == [3]


def test_chats_in_impossible_states_are_refused_row_by_row(new_shop: Landing) -> None:
    order = {"order_state": "shipped", "logistics_state": "late", "item_id": "i1", "days_since_purchase": "5.5"}
    told = {"user_id": "u1", "chat_time": "2026-01-09T10:00:00Z", "intent": "track_order", "message": "where is it?"}
    good = [
        {**told, **order},
        told,
        {**told, "item_id": "i1"},
        {**told, **order, "order_state": "paid", "logistics_state": ""},
    ]
    bad = [
        ("logistics_fit_the_order", {"order_state": "placed"}),
        ("logistics_fit_the_order", {"logistics_state": "delivered"}),
        ("logistics_fit_the_order", {"logistics_state": ""}),
        ("order_state_known", {"order_state": "eaten", "logistics_state": ""}),
        ("logistics_state_known", {"logistics_state": "somewhere"}),
        ("order_has_an_item_and_a_day", {"days_since_purchase": ""}),
        ("order_has_an_item_and_a_day", {"days_since_purchase": "-1"}),
        ("order_has_an_item_and_a_day", {"item_id": ""}),
        ("item_known", {"item_id": "i404"}),
    ]
    new_shop.put("items/items.csv", [{"item_id": "i1", "title": "A pen"}, {"item_id": "i2", "title": "Ink"}])
    rows = [{**one, "chat_id": f"c{n}-{m}"} for n, one in enumerate(good) for m in range(60)]
    odd = [{**told, **order, "chat_id": f"odd{n}", **change} for n, (_, change) in enumerate(bad)]
    new_shop.put("chats/day.jsonl", [*rows, *odd])
    new_shop.ingest("items")
    report = new_shop.ingest("chats")
    assert report.exit_code == 0, report.lines()
    refused = {(row["source_row"], row["rule"]) for row in new_shop.rows("chats_quarantine")}
    assert {(len(rows) + n + 1, rule) for n, (rule, _) in enumerate(bad)} <= refused
    assert len(new_shop.rows("chats")) == len(rows)


def test_impossible_hints_and_searches_are_refused_row_by_row(new_shop: Landing) -> None:
    assert queries(Lake(new_shop.profile)) == []
    day = "2026-01-01T10:00:00Z"
    hint = {
        "request_id": "r", "user_id": "u1", "exposure_time": day, "position": "1", "query": "red pen",
        "policy_version": "p", "hint_chance": "0.5", "list_chance": "0.1",
    }  # fmt: skip
    search = {"request_id": "r", "user_id": "u1", "search_time": day, "source": "typed", "query": "pen", "item_id": ""}
    bad_hints = [
        ("position_from_one", {"position": "0"}),
        ("hint_chance_in_range", {"hint_chance": "0"}),
        ("list_chance_in_range", {"list_chance": "0.6"}),
        ("query_present", {"query": " "}),
    ]
    bad_searches = [
        ("source_known", {"source": "guessed"}),
        ("item_known", {"item_id": "i404"}),
        ("query_present", {"query": ""}),
    ]
    new_shop.put("items/items.csv", [{"item_id": "i1", "title": "A pen"}, {"item_id": "i2", "title": "Ink"}])
    for table, good, bad in (("hint_exposures", hint, bad_hints), ("searches", search, bad_searches)):
        rows = [{**good, "request_id": f"r{n}"} for n in range(100)]
        odd = [{**good, "request_id": f"odd{n}", **change} for n, (_, change) in enumerate(bad)]
        new_shop.put(f"{table}/day.csv", [*rows, *odd])
    asked = [{"query": "red pen"}, {"query": "red pen", "source": "esci"}, {"query": "ink"}]
    new_shop.put("queries/all.csv", asked)
    for table, bad in (("items", []), ("queries", []), ("hint_exposures", bad_hints), ("searches", bad_searches)):
        assert new_shop.ingest(table).exit_code == 0
        assert Counter(new_shop.refused(table).values()) == Counter(rule for rule, _ in bad)
    assert queries(Lake(new_shop.profile)) == ["ink", "red pen"]


def test_a_folder_in_use_and_a_full_disk_are_refused_before_any_work(spark: SparkSession, tmp_path: Path) -> None:
    shop = Shop.of(items(), parameters(), 7)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="a folder of its own"):
        simulate(spark, shop, parameters(), ordered(tmp_path / "used"))
    with pytest.raises(DataError, match="The disk cannot hold"):
        simulate(spark, shop, parameters(), replace(ordered(tmp_path / "new"), rows=10**15))
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    assert (tmp_path / "used" / "mine.txt").read_text() == "keep"
