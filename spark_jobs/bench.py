"""`quality`: what checking every row costs beside one full read of the same partition, with 5 rules and with 50.

`ingest`: what counting the records of a CSV file by themselves costs beside its whole ingest.

`sessions`: what sessions and histories of a simulated log cost, cold and warm, beside a bare window query of Spark.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from infra.bench import measured
from infra.contracts import RowRule, load_contract, spark_ddl
from infra.profile import load_profile
from infra.quality import validate_partitions
from infra.quality.rules import rules_of
from spark_jobs import histories, sessions
from spark_jobs.engine.row_checks import aggregate, check_rows, mask
from spark_jobs.engine.spark import spark_session
from spark_jobs.ingest import ingest
from spark_jobs.landing.csv_rows import CsvRows
from spark_jobs.landing.files import landing_files
from spark_jobs.landing.tables import TABLES
from spark_jobs.market.bench import LOG_DAYS, made_up_shop, simulated

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

_LANDED_ROWS = 1_000_000
_FEW_EVENTS, _MANY_EVENTS, _ON_PAPER = 1_000_000, 10_000_000, 100_000_000
_BARE, _JOBS = "window_query", ("sessions", "histories")
_ONE_USER = "sessions_where_one_user_has_a_fifth"
_GAP = sessions.CONFIG["gap_minutes"] * 60_000_000  # microseconds
_EVENTS = frozenset({"events"})  # all that is written of the logs
_PROBE_ROWS = 50_000  # they tell which share of a log's rows are events

_T = TypeVar("_T")
Spans = dict[str, dict[str, float]]  # of each query: seconds `cold` and `warm`, and the `peak_gib` of its process


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
    """Seconds to build the sessions of about 10 million events of a simulated log, warm; the peer is a bare window
    query of Spark, which only counts them.

    Cold is a query's first run in a process of its own with a new JVM; the two jobs share one, sessions first. The
    start of the session is not in it. The estimate on paper is a line through both sizes.
    """
    with tempfile.TemporaryDirectory() as folder:
        sizes = _alone(_logs, Path(folder), (_FEW_EVENTS, _MANY_EVENTS))
        few, many = (_in_turns_alone(log, events, runs) for log, events in sizes)
    return {
        "ours": many["sessions"]["warm"],
        "peer": many[_BARE]["warm"],
        "unit": "s",
        "runs": runs,
        "origin": "simulated",
        "cold_ratio_to_peer": many["sessions"]["cold"] / many[_BARE]["cold"],
        "cold_events_per_second": many["events"] / sum(many[name]["cold"] for name in _JOBS),
        "peak_gib": max(many[name]["peak_gib"] for name in _JOBS),
        "few": few,
        "many": many,
        "time_per_event_many_to_few": {name: _slope(few, many, name) for name in (*_JOBS, _BARE)},
        "seconds_on_paper": {"events": _ON_PAPER} | {name: _on_paper(few, many, name) for name in (*_JOBS, _BARE)},
    }


def _slope(few: dict[str, Any], many: dict[str, Any], name: str) -> float:
    """The warm time per event of the many over that of the few: 1 where the query is linear."""
    return float(many[name]["warm"] / many["events"] * few["events"] / few[name]["warm"])


def _on_paper(few: dict[str, Any], many: dict[str, Any], name: str) -> float:
    each = (many[name]["cold"] - few[name]["cold"]) / (many["events"] - few["events"])
    return float(many[name]["cold"] + each * (_ON_PAPER - many["events"]))


def _alone(work: Callable[..., _T], *arguments: object) -> _T:
    """What it returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _logs(folder: Path, sizes: Sequence[int]) -> list[tuple[str, int]]:
    """A folder of events of each size, about, and how many there are."""
    spark, shop = spark_session(load_profile("local", environ={"PLUMBLINE__HOME": str(folder)})), made_up_shop()
    probe = simulated(spark, shop, folder / "probe", _PROBE_ROWS)
    found = []
    for size in sizes:
        log = simulated(spark, shop, folder / str(size), int(size * _PROBE_ROWS / probe["events"]), _EVENTS)
        found.append((_with_days(spark, folder / str(size)), int(log["events"])))
    return found


def _with_days(spark: SparkSession, log: Path) -> str:
    """A folder of the log's events with their days, which ingest has told before a job reads them."""
    landed = spark.read.schema(spark_ddl(load_contract("events"))).parquet(str(log / "events"))
    landed.withColumn("event_date", F.to_date("event_time")).write.parquet(str(log / "dated"))
    return str(log / "dated")


def _in_turns_alone(log: str, events: int, runs: int) -> dict[str, Any]:
    """Medians of each query's seconds, its most memory; the processes take turns."""
    turns = [_alone(_spans, log, (_BARE,)) | _alone(_spans, log, (*_JOBS, _ONE_USER)) for _ in range(runs)]
    return {"events": events, **{name: _together([turn[name] for turn in turns]) for name in turns[0]}}


def _together(spans: list[dict[str, float]]) -> dict[str, float]:
    middle = {kind: statistics.median(span[kind] for span in spans) for kind in ("cold", "warm")}
    return middle | {"peak_gib": max(span["peak_gib"] for span in spans)}


def _spans(log: str, names: Sequence[str]) -> Spans:
    """Of each query, all of them cold and then all warm, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        spark = spark_session(load_profile("local", environ={"PLUMBLINE__HOME": folder}))
        events = spark.read.schema(spark_ddl(load_contract("events"))).parquet(log)
        found: Spans = {name: {} for name in names}
        for kind in ("cold", "warm"):
            for name in names:
                run = partial(_built, spark, events, name)
                _, found[name][kind], found[name]["peak_gib"] = measured(run)
        spark.stop()
    return found


def _built(spark: SparkSession, events: DataFrame, name: str) -> None:
    """Every row of the query is made, none is kept."""
    one_user = F.when(F.xxhash64("user_id") % 5 == 0, "one").otherwise(F.col("user_id"))
    queries: dict[str, Callable[[], DataFrame]] = {
        _BARE: lambda: _window_query(events),
        "sessions": lambda: sessions.build(spark, {"events": events}, LOG_DAYS, sessions.CONFIG),
        "histories": lambda: histories.build(spark, {"events": events}, LOG_DAYS, histories.CONFIG),
        _ONE_USER: lambda: sessions.build(
            spark, {"events": events.withColumn("user_id", one_user)}, LOG_DAYS, sessions.CONFIG
        ),
    }
    queries[name]().write.format("noop").mode("overwrite").save()


def _window_query(events: DataFrame) -> DataFrame:
    """Start, end and size of sessions, as one would write them down: a user's events by time, a pause starts one."""
    in_order = Window.partitionBy("user_id").orderBy("event_time")
    pause = F.unix_micros("event_time") - F.lag(F.unix_micros("event_time")).over(in_order)
    starts = (F.coalesce(pause, F.lit(_GAP + 1)) > _GAP).cast("int")
    numbered = events.withColumn("starts", starts).withColumn("number", F.sum("starts").over(in_order))
    return numbered.groupBy("user_id", "number").agg(F.min("event_time"), F.max("event_time"), F.count("*"))


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
