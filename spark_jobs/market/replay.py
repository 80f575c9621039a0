"""Two policies of lists, or of hints, to the same people with the same luck, beside chance and the order of the truth.

Everybody asks for a list once a day until they leave. Where hints are played, everybody sees them first, and who
follows none goes on as ever. A draw belongs to person, visit and item or words (`draws`), so two policies that show the
same meet the same reactions, and a difference is theirs (common random numbers, Glasserman and Yao 1992).
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
from spark_jobs.market.draws import Floats
from spark_jobs.market.hints import HintOracle
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.people import People
from spark_jobs.market.policies import AtRandom, Oracle, Policy
from spark_jobs.market.policy_tables import PolicyTable, numbers
from spark_jobs.market.visits import Visit, World

RANDOM, ORACLE = AtRandom.version, Oracle.version
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
    "leavers": Mean("left"),
}
_COUNTED = ("lists", "clicks", "purchases", "revenue", "bids", "satisfaction", "left", "thousands")


@dataclass(frozen=True)
class Level:
    """A metric by person: of a policy, of chance, and of the order of the truth."""

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
        formula = METRICS[metric]
        found = (self._terms(formula, name).sum(axis=0) for name in (version, RANDOM, ORACLE))
        return Level(*(float(formula.of(sums)) for sums in found))

    def difference(self, metric: str, version: str, against: str, seed: int) -> Interval:
        """Of two policies, with its 95 % interval: the bootstrap over people, both met by the same."""
        formula = METRICS[metric]
        terms = [self._terms(formula, name) for name in (version, against)]
        return interval(formula, terms, self.users, seed=seed, resamples=_RESAMPLES)

    def _terms(self, formula: Formula, version: str) -> Floats:
        return formula.terms(dict(zip(_COUNTED, self.counted[version].T, strict=True)))


def replay(spark: SparkSession, world: World, people: People, tables: Sequence[PolicyTable]) -> Played:
    """Play the tables, which have lists for the same users, chance and the oracle to `people`: theirs, in the order of
    `Tabled.numbers`."""
    listed, hints = [table.policy() for table in tables], tables[0].thing == "query"
    parameters = everybody_sees_hints(world.parameters) if hints else everybody_reads(world.parameters)
    world = replace(world, daily=True, parameters=parameters)
    policies = {policy.version: policy for policy in (*listed, *_beside(world, listed, hints=hints))}
    users = [str(number) for number in people.number]
    counted = _played(spark, world, people, list(policies.values()), hints=hints)
    return Played(users, dict(zip(policies, counted, strict=True)))


def _beside(world: World, listed: Sequence[Policy], *, hints: bool) -> tuple[Policy, Policy]:
    """Chance, and the order of the truth."""
    if hints:
        chance = AtRandom(len(world.queries), world.parameters.hinting.length, world.draws)
        return chance, HintOracle(world.search_box, listed)
    chance = AtRandom(len(world.shop.item_ids), world.parameters.logging.length, world.draws)
    return chance, Oracle(world.shop, world.parameters.utility, listed)


def everybody_reads(parameters: Parameters) -> Parameters:
    """Nobody searches for themselves or follows a hint: what they found would be no list of a policy's."""
    reads = replace(parameters.choices, directly=0.0)
    return replace(parameters, choices=reads, hints=replace(parameters.hints, share=0.0))


def everybody_sees_hints(parameters: Parameters) -> Parameters:
    """At each visit."""
    return replace(parameters, hints=replace(parameters.hints, share=1.0))


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


def play(world: World, people: People, policy: Policy, *, hints: bool = False) -> Floats:
    """What each person did with the lists of the policy, or with its `hints` and beside them: [U, counted]."""
    found = np.zeros((len(people), len(_COUNTED)))
    order = np.argsort(people.number)
    visits = world.visits(people, world.logging, policy) if hints else world.visits(people, policy)
    for visit in visits:
        rows = order[np.searchsorted(people.number, visit.number, sorter=order)]
        found[rows] += _of_a_visit(world, visit, hints=hints)
    return found


def _of_a_visit(world: World, visit: Visit, *, hints: bool) -> Floats:
    """Clicks and satisfaction are of what is played; what is bought, and who leaves, of the whole visit."""
    done, own = visit.done, world.parameters
    read, worth, click = (
        (visit.hints, visit.hints.worth, own.hints.click) if hints else (done, visit.worth, own.choices.click)
    )
    best = np.max(np.where(read.looked, worth, -np.inf), axis=1, initial=-np.inf)
    # The chance to click on the best that was looked at: 0 where there was nothing to look at.
    satisfied = 1.0 / (1.0 + np.exp(click - best))
    bids = np.where(done.clicked, world.shop.bids[visit.items.clip(0)], 0.0)
    columns = (
        np.ones(len(visit.number)),
        read.clicked.sum(axis=1),
        done.bought.sum(axis=1),
        np.where(done.bought, visit.prices, 0.0).sum(axis=1),
        bids.sum(axis=1),
        satisfied,
        done.left,
        (visit.items >= 0).sum(axis=1) / 1000.0,
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _played(spark: SparkSession, world: World, people: People, policies: Sequence[Policy], hints: bool) -> list[Floats]:
    """What everybody did under each policy, [U, counted] each: blocks of people, in parallel."""
    starts = range(0, len(people), _BLOCK)
    known = spark.sparkContext.broadcast((world, people, policies, hints, _BLOCK))
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
    batches: Iterable[pa.RecordBatch], world: World, people: People, policies: Sequence[Policy], hints: bool, size: int
) -> Iterator[pa.RecordBatch]:
    blocks = -(-len(people) // size)
    for batch in batches:
        for task in batch["id"].to_pylist():
            policy, start = policies[task // blocks], task % blocks * size
            own = people.chosen(np.arange(start, min(start + size, len(people))))
            counted = play(world, own, policy, hints=hints)
            yield pa.record_batch({"task": pa.array([task], pa.int64()), "counted": [counted.tobytes()]})
