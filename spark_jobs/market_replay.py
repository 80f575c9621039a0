"""The night's lists, played in the market: champion and challenger to the same people with the same luck.

The people are who might be behind the histories of the lists' users (`market.people`), in the market that was tuned on
logs of the shop's kind (`market.validity`), so every figure is simulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract, spark_ddl
from spark_jobs.engine.job import Input, Job
from spark_jobs.market.known import delivered, taken
from spark_jobs.market.night import world_of
from spark_jobs.market.policy_tables import PolicyTable, require_same_users
from spark_jobs.market.replay import METRICS, people_of, replay
from spark_jobs.market.validity import kind_of, market_of, markets

_ROLES = ("champion", "baseline", "challenger")  # the first that there is, is what the others are held against
CONFIG = {"days": 10, "people": 10_000, "seed": 7, "parameters": markets()}


def build(
    spark: SparkSession, frames: Mapping[str, DataFrame], partitions: Sequence[date], config: Mapping[str, Any]
) -> DataFrame:
    """Each version's figures; `frames` holds `recommendations`, `items` and `events`."""
    rows = [row for day in partitions for row in _of_a_night(spark, frames, day, config)]
    return spark.createDataFrame(rows, spark_ddl(load_contract("market_replay")))


def _of_a_night(
    spark: SparkSession, frames: Mapping[str, DataFrame], night: date, config: Mapping[str, Any]
) -> Iterator[Row]:
    lists = frames["recommendations"].where(F.col("run_date") == night).toPandas()
    if lists.empty:
        return
    items = delivered(frames["items"], night, set(lists["item_id"]))
    if len(items) == 1 and set(lists["item_id"]) == set(items["item_id"]):
        return  # a shop of one thing has lists, and no choice to play
    ids = sorted(items["item_id"])
    made = sorted(lists.groupby(["role", "model_version"]), key=lambda one: (_ROLES.index(one[0][0]), one[0][1]))
    tables = [PolicyTable.of(rows, ids, f"recommendations of {night}, {version}") for (_, version), rows in made]
    for table in tables[1:]:
        require_same_users(tables[0], table)
    tables = [table.first(config["people"]) for table in tables]
    known, seed = frames["events"].where(F.col("event_date") <= night), config["seed"]
    kind, _ = kind_of(known) or (None, 0)
    parameters = market_of(kind)
    world = world_of(items, parameters, seed, config["days"])
    people = people_of(world, tables[0].users, taken(known, tables[0].users, parameters.people.remembers))
    played = replay(spark, world, people, tables)
    against = tables[0].version
    for ((role, _), _), table in zip(made, tables, strict=True):
        for metric in METRICS:
            level = played.level(metric, table.version)
            change = played.difference(metric, table.version, against, seed) if table is not tables[0] else None
            yield Row(
                run_date=night,
                model_version=table.version,
                metric=metric,
                role=role,
                people=len(people),
                days=config["days"],
                value=level.value,
                random=level.random,
                oracle=level.oracle,
                closed=level.closed,
                against=against if change else None,
                difference=change.value if change else None,
                lo=change.lo if change else None,
                hi=change.hi if change else None,
                parameters_hash=parameters.hash,
                seed=seed,
            )


JOB = Job(
    "market_replay",
    version=3,
    inputs=(Input("recommendations"), Input("items", latest=True), Input("events", lookback_days=None)),
    config=CONFIG,
    build=build,
)
