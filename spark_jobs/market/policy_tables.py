"""Tables of lists, of items, hints or intents, that two policies would show: read or refused before they are played."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from common.sentences import some_of
from infra.errors import DataError
from spark_jobs.market.chats import STATES
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.policies import AtRandom, Oracle, Tabled, ordered

Thing = Literal["item_id", "query", "intent"]
"""What a list is of, by its column."""
_NAMES: dict[Thing, str] = {"item_id": "item", "query": "query", "intent": "intent"}
_UNKNOWN: dict[Thing, tuple[str, str, str]] = {  # of queries any is known
    "item_id": ("items that the shop does not have", "items are not in the newest catalogue", "catalogue"),
    "intent": ("intents that the help desk does not have", "intents are not in the newest `intents`", "intents"),
}
_STATE = ["order_state", "logistics_state"]
_CLOSE = 1e-6  # to 1, of the sum of a person's chances
_ELSEWHERE = "Make one table of one night and one version: one row per user and rank."


@dataclass(frozen=True)
class PolicyTable:
    """One list for each of `users`, in rising order: `items` [N, L], numbers of the shop's items, of queries or of
    intents, best first, -1 where a list is shorter; `log_chances` [N, L]: of each to stand first, or scores of an order
    that is certain. Of intents there is a list for each state of an order, [N * S, L], as in `Tabled`."""

    version: str
    users: Sequence[str]
    items: Ints
    log_chances: Floats
    thing: Thing = "item_id"

    @classmethod
    def of(cls, rows: pd.DataFrame, known: Sequence[str], where: str) -> PolicyTable:
        """Of `user_id`, `item_id`, `query` or `intent`, `rank`, and as they are there `chance`, that it stands first,
        and `model_version`. Without chances a list is shown as it is ranked; with them it is drawn by Plackett-Luce.
        `known`: the shop's items, or queries, or intents. Intents may have `order_state` and `logistics_state`, as in
        the table `chats`: then each user has a list for each of the `STATES`, else the same one in all.

        Raises:
            DataError: a column is missing, the table is empty or of several versions, an item is unknown, a user has
                two lists, or none for some state, or their chances are no chances or do not sum to 1.
        """
        thing = thing_of(rows, where)
        version = _version(rows, thing, where)
        rows = rows.assign(state=_states(rows, thing, where))
        _refuse_two_lists(rows, thing, where)
        number = pd.Index(known).get_indexer(rows[thing])
        _refuse_unknown(rows[thing][number < 0], thing, where)
        logs = _log_chances(rows, where)
        wide = rows.assign(item=number, score=ordered(rows["rank"].to_numpy()) if logs is None else logs)
        wide = wide.sort_values(["user_id", "state", "rank"], kind="stable")
        row, users = pd.factorize(wide["user_id"])  # sorted already
        place, state = wide.groupby(["user_id", "state"], sort=False).cumcount().to_numpy(), wide["state"].to_numpy()
        items = np.full((len(users), int(state.max()) + 1, int(place.max()) + 1), -1)
        scores = np.full(items.shape, 0.0)
        items[row, state, place], scores[row, state, place] = wide["item"], wide["score"]
        if thing == "intent" and items.shape[1] == 1:
            items, scores = (np.repeat(one, len(STATES), axis=1) for one in (items, scores))
        flat = len(users) * items.shape[1], items.shape[2]
        return cls(version, users.tolist(), items.reshape(flat), scores.reshape(flat), thing)

    def first(self, people: int) -> PolicyTable:
        """So many of its users at most, those of the lowest numbers: a sample that is always the same."""
        if people >= len(self.users):
            return self
        kept = np.sort(np.argsort(numbers(self.users), kind="stable")[:people])
        users, own = [self.users[row] for row in kept], self._lists(kept)
        return replace(self, users=users, items=self.items[own], log_chances=self.log_chances[own])

    def policy(self) -> Tabled:
        """To be played."""
        number = numbers(self.users)
        order = np.argsort(number, kind="stable")
        own = self._lists(order)
        return Tabled(self.version, number[order], self.items[own], self.log_chances[own], self._states)

    @property
    def _states(self) -> int:
        return len(self.items) // len(self.users)

    def _lists(self, users: Ints) -> Ints:
        """The rows of all lists of these."""
        return (users[:, None] * self._states + np.arange(self._states)).ravel()


def read_rows(file: Path) -> pd.DataFrame:
    """Of a Parquet file, as `PolicyTable.of` takes them; queries without blanks around them.

    Raises:
        DataError: there is no such file, it is no Parquet, or it lacks columns.
    """
    if not file.is_file():
        raise DataError("There is no such policy table.", where=str(file), do="Name a Parquet file of lists.")
    try:
        rows = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise DataError("A policy table cannot be read.", where=str(file), why=str(error)) from error
    if thing_of(rows, str(file)) == "query":
        texts = rows["query"].astype("string").str.strip()
        rows["query"] = texts.astype(object).where(texts.notna() & (texts != ""), None)
    return rows


def numbers(users: Sequence[str]) -> Ints:
    """A number for each id, always the same one: draws are keyed by it. [N], from 0 to below 2 ** 62."""
    digests = [hashlib.blake2b(user.encode(), digest_size=8).digest() for user in users]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).view(np.int64) >> 2 & (2**62 - 1)


def same_thing(rows: Sequence[pd.DataFrame], where: str) -> Thing:
    """What the lists of both tables are of; DataError where these are two things."""
    things = {thing_of(one, where) for one in rows}
    if len(things) > 1:
        raise DataError(
            "Lists of two kinds cannot be compared.",
            where=where,
            why="What people do about one is not what they do about the other.",
            do="Name two tables of items, two of hints, or two of intents.",
        )
    return things.pop()


def require_same_users(a: PolicyTable, b: PolicyTable) -> None:
    """Raise a DataError unless both tables have a list for the same users: others could not be compared."""
    apart = sorted(set(a.users) ^ set(b.users))
    if apart:
        raise DataError(
            "The two policies do not serve the same users.",
            where=f"{a.version} ({len(a.users)} users) and {b.version} ({len(b.users)})",
            why=f"{len(apart)} users have a list of one of them only: {some_of(apart)}.",
            do="Make both tables for the same users.",
        )


def thing_of(rows: pd.DataFrame, where: str) -> Thing:
    """What the lists are of.

    Raises:
        DataError: of nothing, or of two things; or another column is missing.
    """
    things = [thing for thing in _NAMES if thing in rows]
    missing = [name for name in ("user_id", "rank") if name not in rows]
    if len(things) != 1 or missing:
        found = f"both {' and '.join(things)}" if things else "no item_id (or query, or intent)"
        why = " and ".join([found] * (len(things) != 1) + [f"no {', '.join(missing)}"] * bool(missing))
        raise DataError(
            "A policy table lacks columns, or has too many.",
            where=where,
            why=f"It has {why}.",
            do="Give it user_id, item_id (or query, or intent), rank (from 1), and chance where the lists are drawn.",
        )
    return things[0]


def _version(rows: pd.DataFrame, thing: Thing, where: str) -> str:
    blank = rows[["user_id", thing, "rank"]].isna().any(axis=1)
    if rows.empty or blank.any():
        why = "It has no rows." if rows.empty else f"{int(blank.sum())} rows name no user, rank or {_NAMES[thing]}."
        raise DataError("A policy table cannot be played.", where=where, why=why, do=_ELSEWHERE)
    versions = sorted(set(rows["model_version"].astype(str))) if "model_version" in rows else [Path(where).stem]
    if len(versions) > 1:
        why = f"It holds lists of {len(versions)} versions: {some_of(versions)}."
        raise DataError("A policy table holds more than one policy.", where=where, why=why, do=_ELSEWHERE)
    if versions[0] in (AtRandom.version, Oracle.version):
        why = f"{versions[0]!r} is what every policy is held against."
        raise DataError("A policy has a name that is taken.", where=where, why=why, do="Name its version otherwise.")
    return str(versions[0])


def _refuse_two_lists(rows: pd.DataFrame, thing: Thing, where: str) -> None:
    own = ["user_id", "state"]
    twice_at = ([*own, "rank"], "two at one rank"), ([*own, thing], f"one {_NAMES[thing]} twice")
    for columns, what in twice_at:
        twice = rows[rows.duplicated(columns, keep=False)]
        if len(twice):
            users = sorted(set(twice["user_id"]))
            why = f"{len(users)} users have {what}: {some_of(users)}."
            raise DataError("A user has more than one list.", where=where, why=why, do=_ELSEWHERE)


def _refuse_unknown(unknown: pd.Series, thing: Thing, where: str) -> None:
    if len(unknown):
        what, which, whose = _UNKNOWN[thing]
        names = sorted(set(unknown))
        raise DataError(
            f"A policy shows {what}.",
            where=where,
            why=f"{len(names)} {which}: {some_of(names)}.",
            do=f"Ingest the {whose} that the lists were made of, or take these {_NAMES[thing]}s from the lists.",
        )


def _states(rows: pd.DataFrame, thing: Thing, where: str) -> Ints:
    """Of each row the number among STATES; 0 where the table tells of none."""
    told = [name for name in _STATE if name in rows] if thing == "intent" else []
    if not told:
        return np.zeros(len(rows), dtype=np.int64)
    do = "Give both columns, as in the table `chats`, and each user a list for each state; or neither column."
    if len(told) == 1:
        why = f"It has {told[0]} alone."
        raise DataError("A policy table tells half of the state of an order.", where=where, why=why, do=do)
    named = [
        tuple(value if isinstance(value, str) and value else None for value in row) for row in rows[_STATE].to_numpy()
    ]
    if strange := sorted({_worded(state) for state in set(named) - set(STATES)}):
        raise DataError("A policy table names states that no order is in.", where=where, why=some_of(strange), do=do)
    number = np.array([STATES.index(state) for state in named], dtype=np.int64)
    counted = pd.Series(number).groupby(rows["user_id"].to_numpy()).nunique()
    if len(lacking := sorted(counted.index[counted < len(STATES)])):
        there = set(number[rows["user_id"].to_numpy() == lacking[0]])
        missing = some_of([_worded(state) for place, state in enumerate(STATES) if place not in there])
        why = f"{len(lacking)} users have none for some states: {some_of(lacking)}; the first for: {missing}."
        raise DataError("A policy has no list for some states of an order.", where=where, why=why, do=do)
    return number


def _worded(state: Sequence[str | None]) -> str:
    return ", ".join(part for part in state if part is not None) or "no order"


def _log_chances(rows: pd.DataFrame, where: str) -> Floats | None:
    """Of each row; None where the table has none."""
    if "chance" not in rows:
        return None
    chance = rows["chance"].to_numpy(dtype=np.float64)
    bad = ~((chance > 0.0) & (chance <= 1.0 + _CLOSE))
    sums = rows["chance"].groupby([rows["user_id"], rows["state"]]).sum()
    off = sums[(sums - 1.0).abs() > _CLOSE]
    if bad.any() or len(off):
        users = sorted(set(rows["user_id"][bad] if bad.any() else off.index.get_level_values("user_id")))
        what = "have a chance that is not above 0 and at most 1" if bad.any() else "have chances that do not sum to 1"
        raise DataError(
            "The chances of a policy are no chances.",
            where=where,
            why=f"{len(users)} users {what}: {some_of(users)}.",
            do="Of each user give all candidates, each with its chance to stand first.",
        )
    return np.asarray(np.log(chance), dtype=np.float64)
