"""A table of lists is read as it is meant, or refused with the users and items that are at fault."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DataError
from spark_jobs.market.chats import STATES
from spark_jobs.market.policy_tables import PolicyTable, numbers, read_rows, require_same_users, same_thing

ITEMS = ["i1", "i2", "i3"]


def table(*rows: tuple[Any, ...], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"]).assign(**columns)


GOOD = table(("u2", "i3", 1), ("u1", "i2", 2), ("u1", "i1", 1))

HINTS = GOOD.rename(columns={"item_id": "query"}).assign(query=["red pen", "red pen", "ink 🖋"])


INTENTS = GOOD.rename(columns={"item_id": "intent"}).assign(intent=["a", "b", "c"])
EVERY = pd.DataFrame(
    [
        (user, *state, intent, rank)
        for user in ("u2", "u1")
        for place, state in enumerate(STATES)
        for rank, intent in ((2, "abc"[place % 3]), (1, "cab"[place % 3]))
    ],
    columns=["user_id", "order_state", "logistics_state", "intent", "rank"],
)


def test_lists_are_read_by_user_and_rank() -> None:
    read = PolicyTable.of(GOOD, ITEMS, "lists/mine.parquet")
    assert read.version == "mine" and list(read.users) == ["u1", "u2"]
    assert read.items.tolist() == [[0, 1], [2, -1]]
    policy = read.policy()
    assert (np.diff(policy.numbers) > 0).all()
    first = policy.items[np.searchsorted(policy.numbers, numbers(["u1"])[0])]
    assert first.tolist() == [0, 1]


def test_chances_are_kept_as_logarithms() -> None:
    read = PolicyTable.of(GOOD.assign(chance=[1.0, 0.25, 0.75]), ITEMS, "x")
    assert read.log_chances[0].tolist() == pytest.approx([math.log(0.75), math.log(0.25)])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (GOOD.drop(columns="rank"), ["lacks columns", "rank"]),
        (GOOD.assign(query="pen"), ["has too many", "both item_id and query"]),
        (GOOD.drop(columns=["item_id", "user_id"]), ["no item_id (or query, or intent) and no user_id"]),
        (HINTS.assign(query=["pen", None, "ink"]), ["cannot be played", "1 rows name no user, rank or query"]),
        (HINTS.assign(query="pen"), ["more than one list", "one query twice", "u1"]),
        (GOOD.iloc[:0], ["cannot be played", "no rows"]),
        (GOOD.assign(item_id=[None, "i2", "i1"]), ["cannot be played", "1 rows name no user"]),
        (table(("u1", "i9", 1)), ["does not have", "1 items", "i9"]),
        (table(("u1", "i1", 1), ("u1", "i2", 1)), ["more than one list", "1 users", "u1"]),
        (table(("u1", "i1", 1), ("u1", "i1", 2)), ["more than one list", "one item twice"]),
        (GOOD.assign(model_version=["7", "7", "8"]), ["more than one policy", "7, 8"]),
        (GOOD.assign(model_version="oracle"), ["name that is taken", "'oracle'"]),
        (GOOD.assign(chance=[1.0, 0.5, 0.4]), ["do not sum to 1", "u1"]),
        (GOOD.assign(chance=[0.0, 0.5, 0.5]), ["not above 0", "u2"]),
        (GOOD.assign(chance=[np.nan, 0.5, 0.5]), ["not above 0", "u2"]),
    ],
)
def test_what_is_no_policy_is_refused(rows: pd.DataFrame, words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        PolicyTable.of(rows, ITEMS, "lists.parquet")
    assert all(word in str(refused.value) for word in [*words, "lists.parquet"])


def test_a_file_that_is_missing_or_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such policy table"):
        read_rows(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("user_id,item_id")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "bad.parquet")


def test_hints_are_read_by_their_words(tmp_path: Path) -> None:
    HINTS.assign(query=[" red pen", "red pen ", "ink 🖋"]).to_parquet(tmp_path / "hints.parquet")
    rows = read_rows(tmp_path / "hints.parquet")
    read = PolicyTable.of(rows, ["ink 🖋", "red pen"], "x")
    assert read.thing == "query" and read.items.tolist() == [[0, 1], [1, -1]]
    assert same_thing([rows, rows], "x") == "query" and same_thing([GOOD, GOOD], "x") == "item_id"
    HINTS.assign(query="  ").to_parquet(tmp_path / "blank.parquet")
    with pytest.raises(DataError, match="3 rows name no"):
        PolicyTable.of(read_rows(tmp_path / "blank.parquet"), [], "x")


def test_intents_have_a_list_for_each_state_of_an_order_or_one_for_all() -> None:
    read = PolicyTable.of(EVERY, ["a", "b", "c"], "x")
    assert read.thing == "intent" and read.items.shape == (2 * len(STATES), 2)
    assert read.items[:4].tolist() == [[2, 0], [0, 1], [1, 2], [2, 0]]
    policy = read.policy()
    assert policy.states == len(STATES)
    assert read.first(1).items.tolist() == read.items[: len(STATES)].tolist()
    everywhere = PolicyTable.of(INTENTS, ["a", "b", "c"], "x")
    assert everywhere.items.reshape(2, len(STATES), 2)[0].tolist() == [[2, 1]] * len(STATES)
    blank = EVERY.assign(
        order_state=EVERY["order_state"].fillna(""), logistics_state=EVERY["logistics_state"].fillna("")
    )
    assert np.array_equal(PolicyTable.of(blank, ["a", "b", "c"], "x").items, read.items)
    # What tells of states and is no list of intents is a column like any other.
    assert PolicyTable.of(GOOD.assign(order_state="eaten"), ITEMS, "x").items.shape == (2, 2)


def test_the_list_of_a_persons_state_is_found_whatever_the_order_of_people() -> None:
    users = [f"u{n}" for n in range(20)]
    rows = [(user, *state, f"{n}-{s}", 1) for n, user in enumerate(users) for s, state in enumerate(STATES)]
    names = [row[3] for row in rows]
    policy = PolicyTable.of(pd.DataFrame(rows, columns=EVERY.columns), names, "x").first(15).policy()
    row_of = {int(number): n for n, number in enumerate(numbers(users))}
    for person in policy.numbers:
        for state in range(len(STATES)):
            at = np.searchsorted(policy.numbers, person) * policy.states + state
            assert names[policy.items[at, 0]] == f"{row_of[int(person)]}-{state}"


STATELESS = EVERY.drop(index=EVERY.index[(EVERY["order_state"] == "paid") & (EVERY["user_id"] == "u1")])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (INTENTS.assign(intent=["a", "weather", "c"]), ["intents that the help desk does not have", "weather"]),
        (INTENTS.assign(item_id="i1"), ["has too many", "both item_id and intent"]),
        (INTENTS.assign(intent="a"), ["more than one list", "one intent twice", "u1"]),
        (EVERY.assign(rank=1), ["more than one list", "two at one rank", "u1, u2"]),
        (INTENTS.assign(intent=None), ["cannot be played", "3 rows name no user, rank or intent"]),
        (EVERY.drop(columns="order_state"), ["half of the state", "logistics_state alone"]),
        (EVERY.replace({"logistics_state": {"lost": "at sea"}}), ["no order is in", "shipped, at sea"]),
        (STATELESS, ["no list for some states", "1 users", "u1", "the first for: paid"]),
        (INTENTS.assign(order_state=None, logistics_state=None), ["no list for some states", "placed, paid"]),
        (EVERY.assign(chance=0.4), ["do not sum to 1", "u1, u2"]),
    ],
)
def test_what_is_no_policy_of_intents_is_refused(rows: pd.DataFrame, words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        PolicyTable.of(rows, ["a", "b", "c"], "intents.parquet")
    assert all(word in str(refused.value) for word in [*words, "intents.parquet"])


def test_chances_of_intents_sum_to_one_in_each_state() -> None:
    read = PolicyTable.of(EVERY.assign(chance=0.5), ["a", "b", "c"], "x")
    assert read.log_chances.ravel().tolist() == pytest.approx([math.log(0.5)] * len(EVERY))


def test_items_and_hints_are_not_compared() -> None:
    with pytest.raises(DataError, match="cannot be compared") as refused:
        same_thing([GOOD, HINTS], "a.parquet and b.parquet")
    with pytest.raises(DataError, match="cannot be compared"):
        same_thing([HINTS, INTENTS], "a.parquet and b.parquet")
    assert "a.parquet and b.parquet" in str(refused.value)


def test_two_policies_for_other_users_are_refused() -> None:
    other = PolicyTable.of(table(("u2", "i1", 1), ("u3", "i1", 1)), ITEMS, "b.parquet")
    with pytest.raises(DataError, match="do not serve the same users") as refused:
        require_same_users(PolicyTable.of(GOOD, ITEMS, "a.parquet"), other)
    assert "2 users" in str(refused.value) and "u1, u3" in str(refused.value)


@given(st.sets(st.text("uvé0 ", max_size=8), min_size=1, max_size=30), st.integers(1, 40))
def test_a_sample_of_users_is_the_same_in_any_table(users: set[str], people: int) -> None:
    """Those of a smaller shop that are among the first of a larger one are among its own first, too."""
    rows = pd.DataFrame({"user_id": sorted(users), "item_id": "i1", "rank": 1})
    whole = PolicyTable.of(rows, ITEMS, "x")
    kept = whole.first(people)
    assert len(kept.users) == min(people, len(users)) and set(kept.users) <= users
    others = [user for user in whole.users if user not in kept.users]
    assert not others or numbers(others).min() > numbers(kept.users).max()
    assert kept.items.shape[0] == len(kept.users)
