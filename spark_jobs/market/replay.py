"""Two policies of lists, hints or intents, to the same people with the same luck, beside chance and the truth's order.

Everybody comes once a day until they leave, and meets what is played there or in a chat about it (`kinds`): who follows
no hint goes on as ever. A draw belongs to person, visit and item or words (`draws`), so two policies that show the same
meet the same reactions, and a difference is theirs (common random numbers, Glasserman and Yao 1992).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession

from common.bootstrap import Interval, interval
from common.formulas import Formula, Mean, Ratio
from infra.errors import DataError
from spark_jobs.market.draws import Floats
from spark_jobs.market.income import IncomeOracle
from spark_jobs.market.kinds import KINDS, Kind, Reading
from spark_jobs.market.people import People
from spark_jobs.market.policies import AtRandom, Oracle, Policy
from spark_jobs.market.policy_tables import PolicyTable, numbers
from spark_jobs.market.visits import Visit, World

RANDOM, ORACLE, INCOME = AtRandom.version, Oracle.version, IncomeOracle.version
_BLOCK = 1_000  # people at a time
_RESAMPLES = 1_000
_NO_GAP = 1e-9
METRICS: dict[str, Formula] = {
    "clicks": Mean("clicks"),
    "purchases": Mean("purchases"),
    "revenue": Mean("revenue"),
    "bids": Mean("bids"),
    "ecpm": Ratio("bids", "thousands"),
    "satisfaction": Ratio("satisfaction", "lists"),
    "preference": Ratio("preference", "places"),
    "leavers": Mean("left"),
}
_PAID = ("bids", "ecpm")
_COUNTED = (
    *("lists", "clicks", "purchases", "revenue", "bids"),
    *("satisfaction", "preference", "places", "left", "thousands"),
)
_LEFT = _COUNTED.index("left")


@dataclass(frozen=True)
class Level:
    """A metric by person: of a policy, of chance, and of the order of the truth, or of the most that can be earned."""

    value: float
    random: float
    oracle: float

    @property
    def closed(self) -> float | None:
        """Share of the way from chance to the oracle; None where there is none."""
        gap = self.oracle - self.random
        return (self.value - self.random) / gap if abs(gap) > _NO_GAP else None


@dataclass(frozen=True)
class Played:
    """What the people `users` did under each policy, by version: [U, counted] each."""

    users: Sequence[str]
    counted: Mapping[str, Floats]

    def level(self, metric: str, version: str) -> Level:
        """Of one of the METRICS."""
        formula, best = METRICS[metric], self._best(metric)
        found = (self._terms(formula, name).sum(axis=0) for name in (version, RANDOM, best))
        return Level(*(float(formula.of(sums)) for sums in found))

    def difference(self, metric: str, version: str, against: str, seed: int) -> Interval:
        """Of two policies, with its 95 % interval: the bootstrap over people, both met by the same."""
        formula = METRICS[metric]
        terms = [self._terms(formula, name) for name in (version, against)]
        return interval(formula, terms, self.users, seed=seed, resamples=_RESAMPLES)

    def _best(self, metric: str) -> str:
        return INCOME if metric in _PAID and INCOME in self.counted else ORACLE

    def _terms(self, formula: Formula, version: str) -> Floats:
        return formula.terms(dict(zip(_COUNTED, self.counted[version].T, strict=True)))


def replay(spark: SparkSession, world: World, people: People, tables: Sequence[PolicyTable]) -> Played:
    """Play the tables, which have lists for the same users, chance and the oracles to `people`: theirs, in the order of
    `Tabled.numbers`.

    Raises:
        DataError: nobody met what is played: of so few people, in so few days, nobody opened a chat.
    """
    listed, kind = [table.policy() for table in tables], KINDS[tables[0].thing]
    world = replace(world, daily=True, parameters=kind.met_by_all(world.parameters))
    policies = {policy.version: policy for policy in (*listed, *kind.beside(world, listed))}
    users = [str(number) for number in people.number]
    counted = _played(spark, world, people, list(policies.values()), kind)
    if any(one[:, 0].sum() == 0 for one in counted):
        raise DataError(
            "Nobody met what was to be played.",
            where=f"{len(people):,} people, {world.horizon.days} days",
            do="Play to more people, or for more days.",
        )
    return Played(users, dict(zip(policies, counted, strict=True)))


def people_of(world: World, users: Sequence[str], taken: pd.DataFrame) -> People:
    """Who might be behind the histories `taken` (user_id, item_id, newest first), in the order of `Tabled.numbers`."""
    number = numbers(users)
    order = np.argsort(number, kind="stable")
    row_of, item_of = pd.Index([users[row] for row in order]), pd.Index(world.shop.item_ids)
    known = taken.assign(row=row_of.get_indexer(taken["user_id"]), item=item_of.get_indexer(taken["item_id"]))
    known = known[(known["row"] >= 0) & (known["item"] >= 0)]
    place = known.groupby("row").cumcount().to_numpy()
    items = np.full((len(users), int(place.max(initial=-1)) + 1), -1)
    items[known["row"], place] = known["item"]
    return People.behind(number[order], items, world.shop, world.parameters, world.draws)


def told(played: Played, a: str, b: str, seed: int) -> list[str]:
    """Two policies, metric by metric, as lines for people."""
    lines = [f"{'by person':<13}{a[:12]:>13}{b[:12]:>13}{RANDOM:>11}{ORACLE:>11}  difference, 95 %"]
    for metric in METRICS:
        ours, theirs = (played.level(metric, version) for version in (a, b))
        change = played.difference(metric, a, b, seed)
        closed = "" if ours.closed is None else f"  ({ours.closed:.0%} and {theirs.closed:.0%} of the way)"
        levels = f"{ours.value:13.4f}{theirs.value:13.4f}{ours.random:11.4f}{ours.oracle:11.4f}"
        lines.append(f"{metric:<13}{levels}  {change.value:+.4f} [{change.lo:+.4f}, {change.hi:+.4f}]{closed}")
    return lines


def play(world: World, people: People, policy: Policy, kind: Kind = KINDS["item_id"]) -> Floats:
    """What each person did with what the policy makes, and beside it: [U, counted]."""
    found, gone = np.zeros((len(people), len(_COUNTED))), np.full(len(people), np.inf)
    order = np.argsort(people.number)
    for visit in kind.visits(world, people, policy):
        rows = order[np.searchsorted(people.number, visit.number, sorter=order)]
        read = kind.read(world, visit, policy)
        comes = visit.time < gone[rows]  # and was not driven away since the last visit
        found[rows[comes]] += _of_a_visit(world, visit, read)[comes]
        gone[rows[comes]] = np.minimum(gone[rows[comes]], read.gone[comes])
    found[:, _LEFT] = np.minimum(found[:, _LEFT], 1.0)
    return found


def _of_a_visit(world: World, visit: Visit, read: Reading) -> Floats:
    """Clicks, satisfaction and preference are of what is played; what is bought, and who leaves, of the whole visit."""
    done = visit.done
    bids = np.where(done.clicked, world.shop.bids[visit.items.clip(0)], 0.0)
    columns = (
        read.lists,
        read.clicks,
        done.bought.sum(axis=1),
        np.where(done.bought, visit.prices, 0.0).sum(axis=1),
        bids.sum(axis=1),
        read.satisfaction,
        read.preference,
        read.places,
        done.left | np.isfinite(read.gone),
        (visit.items >= 0).sum(axis=1) / 1000.0,
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _played(spark: SparkSession, world: World, people: People, policies: Sequence[Policy], kind: Kind) -> list[Floats]:
    """What everybody did under each policy, [U, counted] each: blocks of people, in parallel."""
    starts = range(0, len(people), _BLOCK)
    known = spark.sparkContext.broadcast((world, people, policies, kind, _BLOCK))
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
    batches: Iterable[pa.RecordBatch], world: World, people: People, policies: Sequence[Policy], kind: Kind, size: int
) -> Iterator[pa.RecordBatch]:
    blocks = -(-len(people) // size)
    for batch in batches:
        for task in batch["id"].to_pylist():
            policy, start = policies[task // blocks], task % blocks * size
            own = people.chosen(np.arange(start, min(start + size, len(people))))
            counted = play(world, own, policy, kind)
            yield pa.record_batch({"task": pa.array([task], pa.int64()), "counted": [counted.tobytes()]})
