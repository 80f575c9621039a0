"""The validity card of each night: where the market on this shop's catalogue is like real logs, and this shop's own.

The market is the one that was tuned on logs of the shop's kind, by which its lists are played (market_replay). The
shop's kind is that of which it has the most events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract, spark_ddl
from spark_jobs.engine.job import Input, Job
from spark_jobs.market.known import delivered
from spark_jobs.market.night import world_of
from spark_jobs.market.takes import STATISTICS, NothingToMeasure, Takes, measured
from spark_jobs.market.validity import (
    MARKET,
    SHOP,
    Width,
    card,
    kind_of,
    lived_takes,
    logs_of,
    market_of,
    markets,
    read_real_logs,
)

BASE = "base"
_WIDTH = Width.read()
_PARTS = 2**20  # of all users, by a hash
CONFIG = {
    "people": 5_000,
    "seed": 7,
    "takes": 1_000_000,  # of the shop's own log, about; of a larger one some users are measured
    "parameters": markets(),
    "width": asdict(_WIDTH),
    "logs": {name: dict(log.values) for name, log in read_real_logs().items()},
}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Each night's card; `frames` holds `items` and `events`."""
    contract = load_contract("market_validity")
    found = (row for night in partitions for row in _of_a_night(frames, night, config))
    rows = [tuple(row[column.name] for column in contract.columns) for row in found]
    return spark.createDataFrame(rows, spark_ddl(contract))


def _of_a_night(frames: Mapping[str, DataFrame], night: date, config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    events = frames["events"].where(F.col("event_date") <= night)
    found = kind_of(events)
    if found is None:
        return  # nobody has taken anything yet
    name, count = found
    kind, parameters = _WIDTH.kinds[name], market_of(name)
    own = _some_users(events.where(F.col("event_type") == kind.own), config["takes"] / count)
    items = delivered(frames["items"], night, set(own["item_id"]))
    if len(items) < 2:
        return  # a shop of one thing is no market
    seed, logs, (values, takes) = config["seed"], logs_of(name), _figures(own, 1)
    world = world_of(items, parameters, seed, kind.days)
    market, lived = _figures(lived_takes(world, config["people"], kind), kind.least)
    size = {MARKET: lived, SHOP: takes, **{log: known.rows for log, known in logs.items()}}
    for row in card(market, logs, _WIDTH, parameters.hash, values):
        key = {"run_date": night, "setting": kind.setting or BASE, "kind": name}
        yield {**asdict(row), **key, "takes": size[row.source], "seed": seed if row.source == MARKET else None}


def _some_users(events: DataFrame, share: float) -> pd.DataFrame:
    """All takes of about this share of the users: always the same ones."""
    part = F.pmod(F.xxhash64("user_id"), F.lit(_PARTS))
    return events.where(part < F.lit(int(share * _PARTS))).select("user_id", "item_id", "event_time").toPandas()


def _figures(log: pd.DataFrame, least: int) -> tuple[dict[str, float | None], int]:
    """The statistics of a log's core, and its takes; none of a log that has none."""
    try:
        takes = Takes.of(log, least)
    except NothingToMeasure:
        return dict.fromkeys(STATISTICS), 0
    return measured(takes), len(takes)


JOB = Job(
    "market_validity",
    version=1,
    inputs=(Input("items", latest=True), Input("events", lookback_days=None)),
    config=CONFIG,
    build=build,
)
