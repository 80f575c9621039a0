"""`quality`: what checking every row costs beside one full read of the same partition, with 5 rules and with 50.

`ingest`: what counting the records of a CSV file by themselves costs beside its whole ingest.

`sessions`: whether the sessions job is linear in events where one user has a fifth of them, beside DuckDB.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from pyspark.sql import DataFrame, SparkSession

from infra.bench import in_turns
from infra.contracts import RowRule, load_contract
from infra.profile import CHECKOUT, load_profile
from infra.quality import validate_partitions
from infra.quality.rules import rules_of
from spark_jobs import sessions
from spark_jobs.engine.row_checks import aggregate, check_rows, mask
from spark_jobs.engine.spark import spark_session
from spark_jobs.ingest import ingest
from spark_jobs.landing.csv_rows import CsvRows
from spark_jobs.landing.files import landing_files
from spark_jobs.landing.tables import TABLES

_ROWS = 10_000_000  # planning and starting a query cost the same whatever it reads: here that is a few per cent
_FEWER_ROWS = 2_000_000
_ROW = (
    "date'2018-01-05' as event_date",
    "cast(id * 2654435761 % 500000 as string) as user_id",
    "cast(id * 40503 % 20000 as string) as item_id",
    "timestamp_micros(1515110400000000 + id * 21000) as event_time",
    "element_at(array('view', 'click', 'cart', 'purchase', 'review'), cast(id % 5 as int) + 1) as event_type",
    "cast(if(id % 5 = 4, id % 7, null) as double) as rating",
    "cast(id % 9973 as double) / 100 - 0.01 as price",
)

_SESSIONS_PEER = CHECKOUT / "tests" / "integration" / "spark_cases" / "sessions" / "peer.sql"
_LANDED_ROWS = 1_000_000
_FEW_EVENTS, _MANY_EVENTS = 1_000_000, 10_000_000
_DAYS = [date(2018, 1, 1) + timedelta(days=n) for n in range(30)]
_EVENT = (
    "if(id % 5 = 0, 'u0', concat('u', id * 2654435761 % 20000)) as user_id",
    "cast(id * 40503 % 20000 as string) as item_id",
    "timestamp_micros(1514764800000000 + id * 7919000003 % 2592000000000) as event_time",
    "element_at(array('view', 'click', 'cart', 'purchase'), cast(id % 4 as int) + 1) as event_type",
)


def bench_quality(runs: int = 5) -> dict[str, Any]:
    """Seconds for 50 row rules and all aggregates of one partition of 10 million events; the peer is one full read.

    The same on 2 million events is there too, and with them the key: that is one sort of the partition in one task.
    """
    contract = load_contract("events")
    with _partitions() as frame:
        seconds = _medians(_work(lambda: frame(_ROWS)), runs)
        fewer = _medians(_work(lambda: frame(_FEWER_ROWS)), runs)
        keyed = lambda: aggregate(check_rows(frame(_FEWER_ROWS), contract, _rules(50)), contract)  # noqa: E731
        with_key = _medians({"": keyed}, 1)[""]
        expectations = {str(rows): _expectations(frame(_ROWS).limit(rows)) for rows in (1_000, _FEWER_ROWS)}
    return {
        "ours": seconds["rules_50"],
        "peer": seconds["read"],
        "unit": "s",
        "runs": runs,
        "rows": _ROWS,
        "origin": "simulated",
        "seconds": seconds,
        "ratio_with_5_rules": seconds["rules_5"] / seconds["read"],
        "fewer_rows": {
            "rows": _FEWER_ROWS,
            "seconds": fewer | {"rules_50_and_key": with_key},
            "ratio_with_5_rules": fewer["rules_5"] / fewer["read"],
            "ratio_with_50_rules": fewer["rules_50"] / fewer["read"],
        },
        "expectations_seconds_by_rows": expectations,
    }


def bench_ingest(runs: int = 3) -> dict[str, Any]:
    """Seconds to read and count a million rows of CSV record by record; the peer is the whole ingest of the file."""
    spans = [_ingested() for _ in range(runs)]
    counting, whole = (statistics.median(part) for part in zip(*spans, strict=True))
    return {
        "ours": counting,
        "peer": whole,
        "unit": "s",
        "runs": runs,
        "rows": _LANDED_ROWS,
        "origin": "simulated",
    }


def _ingested() -> tuple[float, float]:
    """Seconds of counting the rows of a new landing folder, and of ingesting it."""
    with tempfile.TemporaryDirectory() as folder:
        places = {"PLUMBLINE__HOME": f"{folder}/home", "PLUMBLINE__LANDING": f"{folder}/landing"}
        profile = load_profile("local", environ=places)
        _write_landing(profile.landing)
        ingest("items", profile)
        (file,) = landing_files(profile.landing, "events").files
        return _seconds(lambda: _counted(file.path)), _seconds(lambda: ingest("events", profile))


def _write_landing(landing: Path) -> None:
    landing.mkdir()
    (landing / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Item number {n}\n" for n in range(20_000)))
    start = datetime(2024, 3, 1, tzinfo=UTC)
    with (landing / "events.csv").open("w") as stream:
        stream.write("user_id,item_id,event_time,event_type,price\n")
        for n in range(_LANDED_ROWS):
            moment = start + timedelta(seconds=n)
            stream.write(f"u{n * 7919 % 50_000},i{n * 40503 % 20_000},{moment.isoformat()},view,{n % 997 / 100}\n")


def _counted(path: Path) -> int:
    with path.open(newline="") as stream:
        return sum(1 for _ in CsvRows("events.csv", stream, TABLES["events"].wanted))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_sessions(runs: int = 3) -> dict[str, Any]:
    """Seconds to build the sessions of 10 million events of 30 days, a fifth of them one user's; the peer is DuckDB.

    `linearity` is the time per event at 10 million over that at 1 million: 1 where the job is linear.
    """
    with tempfile.TemporaryDirectory() as folder:
        spark = spark_session(load_profile("local", environ={"PLUMBLINE__HOME": folder}))
        few, many = (_sessions_in_turns(spark, f"{folder}/{rows}", rows, runs) for rows in (_FEW_EVENTS, _MANY_EVENTS))
    return {
        "ours": many[0],
        "peer": many[1],
        "unit": "s",
        "runs": runs,
        "rows": _MANY_EVENTS,
        "origin": "simulated",
        "share_of_one_user": 0.2,
        "fewer_rows": {"rows": _FEW_EVENTS, "ours": few[0], "peer": few[1]},
        "linearity": (many[0] / _MANY_EVENTS) / (few[0] / _FEW_EVENTS),
        "linearity_of_peer": (many[1] / _MANY_EVENTS) / (few[1] / _FEW_EVENTS),
    }


def _sessions_in_turns(spark: SparkSession, path: str, rows: int, runs: int) -> tuple[float, float]:
    events = spark.range(rows).selectExpr(*_EVENT).selectExpr("to_date(event_time) as event_date", "*")
    events.write.parquet(path)
    frames = {"events": spark.read.parquet(path)}
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"create view events as from '{path}/*.parquet'")
    asked = {**sessions.CONFIG, "partitions": _DAYS}

    def ours() -> None:
        built = sessions.build(spark, frames, _DAYS, sessions.CONFIG)
        built.write.format("noop").mode("overwrite").save()

    def peer() -> None:
        for _ in connection.sql(_SESSIONS_PEER.read_text(), params=asked).to_arrow_reader():
            pass  # as the noop sink of Spark: every row is made, none is kept

    with connection:
        return in_turns(runs, ours, peer)


def _work(frame: Callable[[], DataFrame]) -> dict[str, Callable[[], object]]:
    contract = load_contract("events")
    return {
        "read": lambda: frame().write.format("noop").mode("overwrite").save(),
        "rules_5": lambda: aggregate(mask(frame(), _rules(5)), contract),
        "rules_50": lambda: aggregate(mask(frame(), _rules(50)), contract),
    }


@contextmanager
def _partitions() -> Iterator[Callable[[int], DataFrame]]:
    """A function that reads a partition of the asked number of events, written beforehand."""
    with tempfile.TemporaryDirectory() as folder:
        spark = spark_session(load_profile("local", environ={"PLUMBLINE__HOME": folder}))
        for rows in (_FEWER_ROWS, _ROWS):
            spark.range(rows).selectExpr(*_ROW).write.parquet(f"{folder}/{rows}")
        yield lambda rows: spark.read.parquet(f"{folder}/{rows}")


def _rules(count: int) -> list[RowRule]:
    """The contract's own rules, and as many more of their kind as it takes."""
    own = list(rules_of(load_contract("events")))
    more = [RowRule(f"price_not_{n}", f"price is null or price != {n}.005", "warn", "") for n in range(count)]
    return (own + more)[:count]


def _medians(work: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    spans: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(runs + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                spans[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in spans.items()}


def _expectations(frame: DataFrame) -> float:
    """Seconds of Great Expectations alone, its import not counted (the second call of two)."""
    contract = load_contract("events")
    rows = aggregate(mask(frame, [*rules_of(contract), RowRule("unique_key", "true", "fail", "")]), contract)
    with tempfile.TemporaryDirectory() as home:
        profile = load_profile("local", environ={"PLUMBLINE__HOME": home})
        validate_partitions(profile, contract, rows)
        start = time.perf_counter()
        validate_partitions(profile, contract, rows)
        return time.perf_counter() - start
