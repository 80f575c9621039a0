"""Two policies played to the same people with the same luck, beside chance and beside the order of the truth.

Everybody asks for a list once a day until they leave. A draw belongs to person, visit and item (`draws`), so two
policies that show the same meet the same reactions, and a difference is theirs (common random numbers, Glasserman and
Yao 1992).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession

from common.bootstrap import Interval, interval
from common.formulas import Formula, Mean, Ratio
from spark_jobs.market.draws import Floats
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import REMEMBERED, People
from spark_jobs.market.policies import AtRandom, Oracle, Policy
from spark_jobs.market.policy_tables import PolicyTable, numbers
from spark_jobs.market.visits import Visit, World

_BLOCK = 1_000  # people at a time
_RESAMPLES = 1_000
METRICS: dict[str, Formula] = {
    "clicks": Mean("clicks"),
    "purchases": Mean("purchases"),
    "revenue": Mean("revenue"),
    "bids": Mean("bids"),
    "satisfaction": Ratio("satisfaction", "lists"),
    "leavers": Mean("left"),
}
_COUNTED = ("lists", "clicks", "purchases", "revenue", "bids", "satisfaction", "left")


@dataclass(frozen=True)
class Compared:
    """A metric by person, of the policy `a`, of what it is held against, `b`, of chance and of the oracle; the paired
    `difference` a - b with its interval. `closed_by_a`: share of the way from chance to the oracle, None where there is
    none."""

    metric: str
    a: float
    b: float
    random: float
    oracle: float
    difference: Interval

    @property
    def closed_by_a(self) -> float | None:
        """See the class."""
        return self._closed(self.a)

    @property
    def closed_by_b(self) -> float | None:
        """See the class."""
        return self._closed(self.b)

    def _closed(self, value: float) -> float | None:
        gap = self.oracle - self.random
        return (value - self.random) / gap if abs(gap) > 1e-9 else None


def replay(
    spark: SparkSession, world: World, people: People, a: PolicyTable, b: PolicyTable, seed: int
) -> list[Compared]:
    """`people` are those of both tables, in the order of `Tabled.numbers`."""
    world = replace(world, daily=True, parameters=_everybody_reads(world))
    tables = (a.policy(), b.policy())
    length = world.parameters.logging.length
    policies = (
        *tables,
        AtRandom(len(world.shop.item_ids), length, world.draws),
        Oracle(world.shop, world.parameters.utility, tables),
    )
    counted = _played(spark, world, people, policies)
    users = [str(number) for number in people.number]
    found = []
    for metric, formula in METRICS.items():
        terms = [formula.terms(_named(one)) for one in counted]
        difference = interval(formula, terms[:2], users, seed=seed, resamples=_RESAMPLES)
        ours, theirs, random, oracle = (float(formula.of(one.sum(axis=0))) for one in terms)
        found.append(Compared(metric, ours, theirs, random, oracle, difference))
    return found


def people_of(world: World, users: Sequence[str], taken: pd.DataFrame) -> People:
    """Who might be behind the histories `taken` (user_id, item_id, newest first), in the order of `Tabled.numbers`."""
    number = numbers(users)
    order = np.argsort(number, kind="stable")
    row_of, item_of = pd.Index([users[row] for row in order]), pd.Index(world.shop.item_ids)
    known = taken.assign(row=row_of.get_indexer(taken["user_id"]), item=item_of.get_indexer(taken["item_id"]))
    known = known[(known["row"] >= 0) & (known["item"] >= 0)]
    place = known.groupby("row").cumcount().to_numpy()
    items = np.full((len(users), REMEMBERED), -1)
    items[known["row"], place] = known["item"]
    return People.behind(number[order], items, world.shop, world.parameters, world.draws)


def table_of(found: Sequence[Compared], a: str, b: str) -> list[str]:
    """Lines for people."""
    lines = [f"{'by person':<14}{a[:12]:>12}{b[:12]:>12}{'random':>10}{'oracle':>10}  difference, 95 %"]
    for one in found:
        closed = "" if one.closed_by_a is None else f"  ({one.closed_by_a:.0%} and {one.closed_by_b:.0%} of the way)"
        levels = f"{one.a:12.4f}{one.b:12.4f}{one.random:10.4f}{one.oracle:10.4f}"
        change = f"{one.difference.value:+.4f} [{one.difference.lo:+.4f}, {one.difference.hi:+.4f}]"
        lines.append(f"{one.metric:<14}{levels}  {change}{closed}")
    return lines


def play(world: World, people: People, policy: Policy) -> Floats:
    """What each person did with the lists of the policy: [U, counted]."""
    found = np.zeros((len(people), len(_COUNTED)))
    order = np.argsort(people.number)
    for visit in world.visits(people, policy):
        found[order[np.searchsorted(people.number, visit.number, sorter=order)]] += _of_a_visit(world, visit)
    return found


def _of_a_visit(world: World, visit: Visit) -> Floats:
    done = visit.done
    best = np.max(np.where(done.looked, visit.worth, -np.inf), axis=1, initial=-np.inf)
    # The chance to click on the best that was looked at: 0 where there was nothing to look at.
    satisfied = 1.0 / (1.0 + np.exp(world.parameters.choices.click - best))
    bids = np.where(done.clicked, world.shop.bids[visit.items.clip(0)], 0.0)
    columns = (
        np.ones(len(visit.number)),
        done.clicked.sum(axis=1),
        done.bought.sum(axis=1),
        np.where(done.bought, visit.prices, 0.0).sum(axis=1),
        bids.sum(axis=1),
        satisfied,
        done.left,
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _played(spark: SparkSession, world: World, people: People, policies: Sequence[Policy]) -> list[Floats]:
    """What everybody did under each policy, [U, counted] each: blocks of people, in parallel."""
    starts = range(0, len(people), _BLOCK)
    known = spark.sparkContext.broadcast((world, people, policies))
    tasks = spark.range(0, len(starts) * len(policies), 1, len(starts) * len(policies))
    try:
        rows = tasks.mapInArrow(lambda batches: _blocks(batches, *known.value), "task long, counted binary").collect()
    finally:
        known.destroy()
    blocks = {row["task"]: np.frombuffer(bytes(row["counted"])).reshape(-1, len(_COUNTED)) for row in rows}
    return [
        np.concatenate([blocks[place * len(starts) + block] for block in range(len(starts))])
        for place in range(len(policies))
    ]


def _blocks(
    batches: Iterable[pa.RecordBatch], world: World, people: People, policies: Sequence[Policy]
) -> Iterator[pa.RecordBatch]:
    blocks = -(-len(people) // _BLOCK)
    for batch in batches:
        for task in batch["id"].to_pylist():
            policy, block = policies[task // blocks], task % blocks
            own = people.chosen(np.arange(block * _BLOCK, min((block + 1) * _BLOCK, len(people))))
            counted = play(world, own, policy)
            yield pa.record_batch({"task": pa.array([task], pa.int64()), "counted": [counted.tobytes()]})


def _everybody_reads(world: World) -> Parameters:
    """Nobody searches for themselves: that would be no list of the policy's."""
    return replace(world.parameters, choices=replace(world.parameters.choices, directly=0.0))


def _named(counted: Floats) -> dict[str, Floats]:
    return dict(zip(_COUNTED, counted.T, strict=True))
