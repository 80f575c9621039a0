"""`simulate`: how many rows of the market's log a second at 1 and at 10 million, and what memory that takes.

`replay`: 10 thousand people, 10 days, two policies beside chance and the oracle.
"""

from __future__ import annotations

import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from infra.bench import measured
from infra.profile import load_profile
from spark_jobs.engine.spark import spark_session
from spark_jobs.market.draws import Draws
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import People
from spark_jobs.market.policies import ordered
from spark_jobs.market.policy_tables import PolicyTable
from spark_jobs.market.replay import METRICS, replay
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate
from spark_jobs.market.visits import Horizon, World
from spark_jobs.market.written import LOGS

_ITEMS, _SEED = 10_000, 7
_FEW, _MANY = 1_000_000, 10_000_000
_PEOPLE, _DAYS = 10_000, 10
LOG_DAYS = tuple(date(2026, 1, 1) + timedelta(days=n) for n in range(60))  # of what is simulated
_KINDS = 97


def bench_simulate() -> dict[str, Any]:
    """Rows a second at 10 million; the peer is the same at 1 million: their ratio is 1 where time is linear in rows."""
    with tempfile.TemporaryDirectory() as folder:
        spark, shop = _spark(folder), made_up_shop()
        simulated(spark, shop, Path(folder) / "warm", 50_000)  # workers start, and are no part of it
        few, many = (simulated(spark, shop, Path(folder) / str(rows), rows) for rows in (_FEW, _MANY))
    return {
        "ours": many["rows_per_second"],
        "peer": few["rows_per_second"],
        "unit": "rows/s",
        "runs": 1,
        "origin": "simulated",
        "items": _ITEMS,
        "many": many,
        "few": few,
        "time_per_row_many_to_few": few["rows_per_second"] / many["rows_per_second"],
    }


def bench_replay() -> dict[str, Any]:
    """Seconds for both policies, chance and the oracle, once the shop's items are known to each other."""
    users = [f"u{n}" for n in range(_PEOPLE)]
    with tempfile.TemporaryDirectory() as folder:
        spark, parameters, begun = _spark(folder), Parameters.read(), time.perf_counter()
        world = World(made_up_shop(), parameters, Draws(_SEED), Horizon(0, _DAYS))
        known = time.perf_counter() - begun
        popular = np.argsort(-world.shop.counted, kind="stable")
        tables = [_table(name, users, popular[at : at + 20]) for name, at in (("first", 0), ("next", 20))]
        nobody = np.full((_PEOPLE, 0), -1)
        people = People.behind(tables[0].policy().numbers, nobody, world.shop, parameters, world.draws)
        replay(spark, world, people.chosen(np.arange(100)), [table.first(100) for table in tables])
        played, seconds, gib = measured(lambda: replay(spark, world, people, tables))
        difference = {metric: played.difference(metric, "first", "next", _SEED) for metric in METRICS}
    return {
        "ours": seconds,
        "unit": "s",
        "runs": 1,
        "origin": "simulated",
        "people": _PEOPLE,
        "days": _DAYS,
        "items": _ITEMS,
        "policies": len(played.counted),
        "lists": float(sum(counted[:, 0].sum() for counted in played.counted.values())),
        "peak_gib": gib,
        "seconds_of_the_shop": known,
        "difference_in_clicks": difference["clicks"],
    }


def _table(version: str, users: list[str], items: np.ndarray) -> PolicyTable:
    return PolicyTable(
        version, users, np.tile(items, (len(users), 1)), np.tile(ordered(np.arange(20)), (len(users), 1))
    )


def made_up_shop() -> Shop:
    """Made up: items of kinds, whose words tell of them."""
    numbers = np.arange(_ITEMS)
    frame = pd.DataFrame(
        {
            "item_id": [f"i{n:05d}" for n in numbers],
            "title": [f"thing{n % _KINDS} made{n % 31} size{n % 13} colour{n % 7}" for n in numbers],
            "brand": [f"maker{n % 61}" for n in numbers],
            "category": [f"Shop > kind{n % _KINDS}" for n in numbers],
            "price": 1.0 + numbers % 89,
        }
    )
    return Shop.of(frame, Parameters.read(), _SEED)


def _spark(folder: str) -> SparkSession:
    return spark_session(load_profile("local", environ={"PLUMBLINE__HOME": folder}))


def simulated(
    spark: SparkSession, shop: Shop, folder: Path, rows: int, logs: frozenset[str] = frozenset(LOGS)
) -> dict[str, float]:
    """What is written of a log of so many rows, about, of `LOG_DAYS`: rows, those of events, and what it took."""
    order = Order(rows, _SEED, LOG_DAYS[0], len(LOG_DAYS), folder, logs)
    done, seconds, gib = measured(lambda: simulate(spark, shop, Parameters.read(), order))
    made = sum(done.rows.values())
    return {
        "rows": made,
        "events": done.rows["events"],
        "seconds": seconds,
        "rows_per_second": made / seconds,
        "peak_gib": gib,
        "people": done.people,
    }
