"""Signals off a landing folder, with Spark's stream for real: who calls for hints, kills, deliveries late and twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from infra.errors import DataError, TransientError
from infra.profile import CHECKOUT
from spark_jobs import signals
from spark_jobs.engine.commit import JobReport
from spark_jobs.signals import CONFIG, stream_of
from tests.landing_kit import Shop

EMOJI, ARABIC = "🎁 \u200f gift", "قلم أحمر"


def at(minute: float, day: int = 1) -> str:
    return f"2024-03-{day:02d}T{10 + int(minute) // 60:02d}:{int(minute) % 60:02d}:{int(minute * 60) % 60:02d}Z"


def viewed(user: str, item: str, minute: float, **changes: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_time": at(minute), "event_type": "view", **changes}


def searched(user: str, words: str, minute: float) -> dict[str, Any]:
    request = {"request_id": f"{user}-{minute}", "user_id": user, "search_time": at(minute), "source": "typed"}
    return {**request, "query": words}


def signals_of(shop: Shop) -> dict[tuple[str, str], dict[str, Any]]:
    """By user and content, each of them once."""
    rows = shop.rows("signals")
    assert len({(row["user_id"], row["signal_id"]) for row in rows}) == len(rows)
    return {(row["user_id"], row["content"]): row for row in rows}


def told(row: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    names = ("days_ago", "actions", "contents")
    return list(zip(*(row[f"behaviour_{name}"] for name in names), strict=True))


def lines(report: JobReport) -> str:
    return "\n".join(report.lines())


def test_of_each_person_the_newest_event_is_a_signal_with_what_was_done_up_to_it(shop: Shop) -> None:
    yesterday = [viewed("ann", "i1", 0, event_time=at(0, 1)), viewed("eve", "i9", 0, event_time=at(0, 1))]
    shop.put("events/day.csv", [{**row, "event_time": row["event_time"].replace("-01T", "-02T")} for row in yesterday])
    shop.ingest("events")
    signals.update(shop.profile)
    shop.put(
        "events/a.csv",
        [viewed("ann", name, minute, event_time=at(minute, 3)) for name, minute in (("i3", 9), ("i2", 5))],
    )
    shop.put("searches/a.jsonl", [{**searched("bob", "red  pens", 7), "search_time": at(7, 3)}])
    signals.update(shop.profile)
    found = signals_of(shop)
    assert told(found["ann", "i3"]) == [(1, "view", "i1"), (0, "view", "i2"), (0, "view", "i3")]
    assert told(found["bob", "red pens"]) == [(0, "search", "red pens")]
    assert {(user, row["signal_date"]) for (user, _), row in found.items()} == {
        ("ann", date(2024, 3, 2)), ("eve", date(2024, 3, 2)), ("ann", date(2024, 3, 3)), ("bob", date(2024, 3, 3)),
    }  # fmt: skip
    assert shop.ledger.reconcile() == []


def test_what_landed_out_of_order_and_twice_is_told_in_order_and_once(shop: Shop) -> None:
    rows = [viewed("ann", "i3", 9), viewed("ann", "i1", 1), viewed("ann", "i3", 9), viewed("ann", "i2", 5)]
    shop.put("events/a.csv", rows)
    shop.put("events/b.parquet", list(reversed(rows)))
    signals.update(shop.profile)
    shop.put("events/c.jsonl", rows)
    shop.ingest("events")
    again = signals.update(shop.profile)
    assert "0 new" in lines(again)
    (row,) = signals_of(shop).values()
    assert told(row) == [(0, "view", "i1"), (0, "view", "i2"), (0, "view", "i3")]
    shop.put("events/d.csv", [viewed("ann", "i4", 30)])
    signals.update(shop.profile)
    assert told(signals_of(shop)["ann", "i4"])[-2:] == [(0, "view", "i3"), (0, "view", "i4")]
    assert len(signals_of(shop)["ann", "i4"]["behaviour_actions"]) == 4


def test_a_person_rests_after_a_signal_and_what_lies_before_it_calls_for_none(shop: Shop) -> None:
    for number, (minute, item) in enumerate([(20, "i1"), (29.9, "i2"), (10, "i3"), (30, "i4")]):
        shop.put(f"events/{number}.csv", [viewed("ann", item, minute), viewed("bob", item, minute)][: 1 + number // 3])
        signals.update(shop.profile)
    found = signals_of(shop)
    assert set(found) == {("ann", "i1"), ("ann", "i4"), ("bob", "i4")}
    assert [content for _, _, content in told(found["ann", "i4"])] == ["i3", "i1", "i2", "i4"]


def test_what_comes_a_day_late_is_told_and_calls_for_no_hints(shop: Shop) -> None:
    shop.put("events/a.csv", [viewed("ann", "i1", 0, event_time=at(0, 3))])
    signals.update(shop.profile)
    shop.put("events/b.csv", [viewed("bob", "i2", 0, event_time=at(0, 1)), viewed("ann", "i2", 0, event_time=at(0, 2))])
    report = signals.update(shop.profile)
    assert "1 behaviours came late" in lines(report) and set(signals_of(shop)) == {("ann", "i1")}
    shop.put("events/c.csv", [viewed("bob", "i3", 0, event_time=at(5, 3))])
    signals.update(shop.profile)
    assert told(signals_of(shop)["bob", "i3"]) == [(2, "view", "i2"), (0, "view", "i3")]


def test_the_last_fifty_of_ten_thousand_are_told_and_of_a_long_search_the_beginning(shop: Shop) -> None:
    shop.put("events/a.csv", [viewed("ann", f"i{1 + n % 9}", n / 100) for n in range(10_000)])
    words = ["x" * 10_240, EMOJI, ARABIC]
    shop.put("searches/a.jsonl", [searched(f"u{n}", one, n) for n, one in enumerate(words)])
    signals.update(shop.profile)
    found = signals_of(shop)
    (ann,) = [row for (user, _), row in found.items() if user == "ann"]
    assert len(told(ann)) == CONFIG["length"] == 50
    assert {content for user, content in found if user != "ann"} == {"x" * 120, EMOJI, ARABIC}


def test_what_is_refused_is_counted_and_told_and_stops_nothing(shop: Shop) -> None:
    bad = [viewed("ann", "nowhere", 1), viewed("", "i1", 1), viewed("ann", "i1", 2, event_type="stare"),
           viewed("ann", "i1", 3, event_time="2999-01-01T00:00:00Z")]  # fmt: skip
    shop.put("events/a.csv", [*bad, viewed("bob", "i1", 4)])
    shop.put_text("events/broken.parquet", "no parquet")
    report = lines(signals.update(shop.profile))
    assert set(signals_of(shop)) == {("bob", "i1")}
    for rule in ("item_known", "event_type_known", "event_time_not_in_future"):
        assert f"1 rows refused by rule {rule}" in report
    assert "4 rows" not in report and report.count("rows refused by rule") == 4 and "broken.parquet" in report


def test_a_file_that_is_written_to_afterwards_is_told_and_not_read_again(shop: Shop) -> None:
    shop.put("events.csv", [viewed("ann", "i1", 1)])
    signals.update(shop.profile)
    shop.put("events.csv", [viewed("ann", "i1", 1), viewed("bob", "i1", 1)])
    report = signals.update(shop.profile)
    assert "events.csv" in lines(report) and "ingest reads all" in lines(report)
    assert set(signals_of(shop)) == {("ann", "i1")}


def test_without_new_files_spark_is_not_started(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise AssertionError("Spark was started")

    with monkeypatch.context() as patch:
        patch.setattr(signals, "spark_session", refuse)
        assert "read nothing" in lines(signals.update(shop.profile))
    shop.put("events/a.csv", [viewed("ann", "i1", 1)])
    signals.update(shop.profile)
    monkeypatch.setattr(signals, "spark_session", refuse)
    assert "read nothing" in lines(signals.update(shop.profile))


def test_a_second_reader_is_refused(shop: Shop) -> None:
    with stream_of(shop.profile).alone(), pytest.raises(TransientError, match="another process"):
        signals.update(shop.profile)


@pytest.mark.parametrize("after", [False, True], ids=["before the publish", "before the checkpoint"])
def test_a_batch_that_is_cut_short_is_read_again_and_ends_alike(
    after: bool, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("events/a.csv", [viewed("ann", "i1", 1)])
    signals.update(shop.profile)
    before = signals_of(shop)
    shop.put("events/b.csv", [viewed("bob", "i2", 2), viewed("ann", "i3", 3)])
    whole = signals.commit

    def cut(*arguments: Any) -> None:
        if after:
            whole(*arguments)
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(signals, "commit", cut)
        with pytest.raises(OSError, match="killed"):
            signals.update(shop.profile)
    found = signals_of(shop)
    assert set(found) == ({("bob", "i2")} if after else set()) | set(before)
    shop.put("events/c.csv", [viewed("eve", "i5", 3)])
    signals.update(shop.profile)
    assert set(signals_of(shop)) == {("ann", "i1"), ("bob", "i2"), ("eve", "i5")}
    assert {key: row for key, row in signals_of(shop).items() if key in found} == found
    assert shop.ledger.reconcile() == []


def test_a_batch_that_fails_is_told_in_words_and_once(shop: Shop, tmp_path: Path) -> None:
    shop.put("events/a.csv", [viewed("ann", "i1", 1)])
    places = {"PLUMBLINE__HOME": str(tmp_path / "without items"), "PLUMBLINE__LANDING": str(shop.profile.landing)}
    command = [sys.executable, "-m", "spark_jobs", "signals"]
    failed = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **places}, capture_output=True, text=True)
    assert failed.returncode == DataError.exit_code
    assert failed.stderr.count("The items that events refer to are not there.") == 1
    assert "Traceback" not in failed.stderr and "\tat " not in failed.stderr


def test_killed_between_publish_and_checkpoint_a_rerun_has_each_event_once(shop: Shop) -> None:
    shop.put("events/a.csv", [viewed("ann", "i1", 1), viewed("bob", "i2", 2)])
    places = {"PLUMBLINE__HOME": str(shop.profile.home), "PLUMBLINE__LANDING": str(shop.profile.landing)}
    command = [sys.executable, "-m", "tests.integration.ingest.killed_stream"]
    dead = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **places}, stderr=subprocess.DEVNULL)
    assert dead.returncode == -signal.SIGKILL
    first = signals_of(shop)
    assert set(first) == {("ann", "i1"), ("bob", "i2")}
    report = signals.update(shop.profile)
    assert "0 new" in lines(report) and signals_of(shop) == first
    assert "read nothing" in lines(signals.update(shop.profile))
    assert shop.ledger.reconcile() == []
