"""A night's lists as a judge is asked about them: rows of users with lists in, a row for each listed item out.

Every row that was submitted comes out, with its scores or with the class of its failure. An item that stands in several
lists of a user is judged once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.semantic_judge.aspects import CONTEXT, FUTURE, NOVELTY, PROFILE, Aspect
from training.semantic_judge.examples import EPOCH, Candidate, Cases, Floats, Ints, UserState
from training.semantic_judge.item_statistics import ItemStatistics
from training.semantic_judge.kept_scores import KeptScores, Keys
from training.semantic_judge.serve import Judge

LISTED = "listed_users"
LISTED_COLUMNS = {
    "user_id": pa.string(),
    "as_of": pa.date32(),
    "profile": pa.string(),
    "item_ids": pa.list_(pa.string()),
    "ratings": pa.list_(pa.float64()),
    "listed": pa.list_(pa.string()),
    "versions": pa.list_(pa.string()),
    "roles": pa.list_(pa.string()),
    "ranks": pa.list_(pa.int64()),
}
"""What is read of the query `listed_users.sql`."""
ALLOWANCE = "allowance"
"""The column of a shard that says how many cases of it may be judged, the same in all its rows."""
NOT_IN_CATALOGUE, OVER_BUDGET, DEADLINE, NOT_FINITE = "not_in_catalogue", "over_budget", "deadline", "not_finite"
WITHHELD = "withheld"
ALL_ASPECTS = (PROFILE, FUTURE, NOVELTY, CONTEXT)
SCORE = "score"
KEY = "key"
SCORED_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("model_version", pa.string()),
        ("judge_version", pa.string()),
        ("role", pa.string()),
        ("rank", pa.int64()),
        ("history_length", pa.int64()),
        *((aspect.name, pa.float64()) for aspect in ALL_ASPECTS),
        *((f"weight_{aspect.name}", pa.float64()) for aspect in ALL_ASPECTS),
        (SCORE, pa.float64()),
        ("failure", pa.string()),
    ]
)
SHARD_SCHEMA = SCORED_SCHEMA.append(pa.field(KEY, pa.binary()))


@dataclass(frozen=True, eq=False)
class Night:
    """Answers a shard of users. `judge` is over the catalogue of the day, whose first `there` items can be judged;
    `late` says whether the time is over: nothing is judged then, and what was said before still stands."""

    judge: Judge
    version: str
    there: int
    statistics: ItemStatistics
    keys: Keys
    kept: KeptScores
    late: Callable[[], bool]

    @property
    def aspects(self) -> Sequence[Aspect]:
        """Those that the judge scores."""
        return self.judge.aspects

    def answer(self, shard: pa.Table) -> pa.Table:
        """A row of `SHARD_SCHEMA` for each listed item of each user, in their order."""
        if not len(shard):
            return SHARD_SCHEMA.empty_table()
        users, lines = shard.to_pylist(), _lines(shard)
        numbers = self.judge.evidence.catalogue.numbers
        known = np.array([numbers.get(item, self.there) < self.there for item in lines["item_id"]], dtype=bool)
        asked: dict[tuple[int, str], int] = {}
        place = np.array(
            [
                asked.setdefault((owner, item), len(asked)) if ok else -1
                for owner, item, ok in zip(lines["owner"], lines["item_id"], known.tolist(), strict=True)
            ],
            dtype=np.int64,
        )
        cases = self.cases(users, list(asked))
        keys = self.keys.of(cases)
        values, failure = self._said(cases, keys, int(shard[ALLOWANCE][0].as_py()))
        return self._rows(users, lines, place, keys, values, failure)

    def cases(self, users: Sequence[dict[str, Any]], asked: Sequence[tuple[int, str]]) -> Cases:
        """What the judge is shown of rows `users` of the query and of `asked` items, each with its user's place."""
        states = [_state(row) for row in users]
        found = Cases.of(
            self.judge.evidence.catalogue, [states[owner] for owner, _ in asked], [Candidate(item) for _, item in asked]
        )
        rating, events = self.statistics.of(found.item, found.states.days[found.state])
        return replace(found, mean_rating=rating, events=events)

    def _said(self, cases: Cases, keys: Sequence[bytes], allowance: int) -> tuple[Floats, list[str | None]]:
        """The numbers of each case [n, 2 K + 1], NaN where there are none, and why there is no score."""
        there, values = self.kept.find(keys)
        failure: list[str | None] = [None] * len(cases)
        late = self.late()
        judged = np.flatnonzero(~there & (not late) & _within(cases.state, ~there, allowance))
        if len(judged):
            values[judged] = numbers_of(self.judge, cases.chosen(judged))
        missing = ~there
        missing[judged] = False
        for row in np.flatnonzero(missing).tolist():
            failure[row] = DEADLINE if late else OVER_BUDGET
        for row in np.flatnonzero(~missing & ~np.isfinite(values[:, -1])).tolist():  # an aspect may be unknown
            failure[row] = NOT_FINITE
        return values, failure

    def _rows(
        self,
        users: Sequence[dict[str, Any]],
        lines: dict[str, list[Any]],
        place: Ints,
        keys: Sequence[bytes],
        values: Floats,
        failure: Sequence[str | None],
    ) -> pa.Table:
        failed = [NOT_IN_CATALOGUE if one < 0 else failure[one] for one in place.tolist()]
        nothing = np.array([one is not None for one in failed], dtype=bool)
        # The last row stands for what is not in the catalogue.
        found = np.concatenate([values, np.full((1, values.shape[1]), np.nan, dtype=np.float32)])[place]
        columns: dict[str, Any] = {name: lines[name] for name in ("item_id", "model_version", "role", "rank")}
        columns["user_id"] = [users[owner]["user_id"] for owner in lines["owner"]]
        columns["judge_version"] = [self.version] * len(place)
        columns["history_length"] = [len(users[owner]["item_ids"]) for owner in lines["owner"]]
        names = [aspect.name for aspect in self.aspects]
        for aspect in ALL_ASPECTS:
            absent, k = aspect.name not in names, names.index(aspect.name) if aspect.name in names else 0
            for name, column in ((aspect.name, found[:, k]), (f"weight_{aspect.name}", found[:, len(names) + k])):
                columns[name] = pa.array(column.astype(np.float64), mask=nothing | absent | np.isnan(column))
        columns[SCORE] = pa.array(found[:, -1].astype(np.float64), mask=nothing)
        columns["failure"] = pa.array(failed, pa.string())
        told = [None if one < 0 or failure[one] else keys[one] for one in place.tolist()]
        columns[KEY] = pa.array(told, pa.binary())
        return pa.table(columns).select(SHARD_SCHEMA.names).cast(SHARD_SCHEMA)


def numbers_of(judge: Judge, cases: Cases) -> Floats:
    """What a judge says of n cases as one array [n, 2 K + 1]: expected values (NaN: unknown), weights, score."""
    said = judge.scores_of(cases)
    return np.concatenate([said.aspects, said.weights, said.score[:, None]], axis=1).astype(np.float32)


def as_at_night(cases: Cases) -> Cases:
    """The same cases as a night would ask about them: nobody knows yet what is going to be looked for."""
    return replace(cases, states=replace(cases.states, contexts=[None] * len(cases.states)))


def kept_numbers(shard: pa.Table, scored: Sequence[Aspect]) -> tuple[list[bytes], Floats]:
    """The keys [n] and numbers [n, 2 K + 1] of a shard's scored rows, as `KeptScores` keeps them."""
    own = shard.filter(pc.is_valid(shard[KEY]))
    names = [*(aspect.name for aspect in scored), *(f"weight_{aspect.name}" for aspect in scored), SCORE]
    return own[KEY].to_pylist(), np.stack([own[name].to_numpy() for name in names], axis=1).astype(np.float32)


def with_allowances(shards: Sequence[pa.Table], budget: int | None) -> list[pa.Table]:
    """The shards with what each may have judged: of the `budget` as much as it has of all listed items, so that what a
    shard does hangs on no other one; None: all of them."""
    sizes = [int(pc.sum(pc.list_value_length(shard["listed"])).as_py() or 0) for shard in shards]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    bounds = ends if budget is None or not ends[-1] else ends * budget // ends[-1]
    return [
        shard.append_column(ALLOWANCE, pa.array([int(most)] * len(shard), pa.int64()))
        for shard, most in zip(shards, np.diff(bounds), strict=True)
    ]


def _within(state: Ints, wanted: NDArray[np.bool_], allowance: int) -> NDArray[np.bool_]:
    """Which cases [n] the allowance is enough for, by whole users in their order: half a list tells of nothing."""
    wants = np.bincount(state, weights=wanted, minlength=int(state.max(initial=-1)) + 1)
    return np.asarray((np.cumsum(wants) <= allowance)[state], dtype=bool)


def _lines(shard: pa.Table) -> dict[str, list[Any]]:
    """Of each listed item: the `owner`'s place in the shard, the item, which version's list it stands in, and where."""
    names = {"item_id": "listed", "model_version": "versions", "role": "roles", "rank": "ranks"}
    found = {name: pc.list_flatten(shard[column]).to_pylist() for name, column in names.items()}
    return {**found, "owner": pc.list_parent_indices(shard["listed"].combine_chunks()).to_pylist()}


def _state(row: dict[str, Any]) -> UserState:
    as_of: date = row["as_of"]
    return UserState(row["user_id"], as_of, tuple(row["item_ids"]), tuple(row["ratings"]), row["profile"] or None, None)


def day_of(asked: pa.Table) -> int:
    """The day (since 1970) as of which all users are judged."""
    return int((pc.max(asked["as_of"]).as_py() - EPOCH).days)
