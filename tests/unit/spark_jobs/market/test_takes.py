"""Statistics of logs, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from infra.errors import DataError
from spark_jobs.market import takes
from spark_jobs.market.takes import STATISTICS, Takes, measured


def log(*rows: tuple[str, str, int], unit: str = "ns") -> pd.DataFrame:
    """Takes of user, item and hours since 1970."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "hours"])
    return frame.assign(event_time=pd.to_datetime(frame["hours"], unit="h", utc=True).dt.as_unit(unit))


def of_counts(*counts: int) -> Takes:
    """Items with so many takes, each of a user of its own."""
    return Takes.of(log(*((f"u{i}-{n}", f"i{i}", 0) for i, count in enumerate(counts) for n in range(count))))


def of_orders(*orders: str) -> Takes:
    """Each user's items, a letter each, in order and without times."""
    return Takes.of(pd.DataFrame([(n, item) for n, own in enumerate(orders) for item in own], columns=USER_ITEM))


USER_ITEM = ["user_id", "item_id"]


def test_a_power_law_has_its_exponent() -> None:
    assert takes.popularity_exponent(of_counts(*(round(10_000 / rank) for rank in range(1, 11)))) == pytest.approx(
        1.0, abs=1e-3
    )
    assert takes.popularity_exponent(of_counts(3, 3, 3)) == pytest.approx(0.0)
    assert takes.popularity_exponent(of_counts(3)) is None


def test_how_unequal_items_are() -> None:
    """1, 1, 2 and 4 takes: differences of all pairs 0, 1, 3, 1, 3, 2, twice, over 2 * 16 * mean 2."""
    assert takes.gini(of_counts(4, 1, 2, 1)) == pytest.approx(20 / 64)
    assert takes.gini(of_counts(2, 2)) == 0.0
    assert takes.top_percent_share(of_counts(4, 1, 2, 1)) == 0.5  # one of four is the first 1 %, rounded up
    assert takes.top_percent_share(of_counts(5, 5, *[1] * 190)) == pytest.approx(10 / 200)


def test_how_long_histories_are_and_what_is_taken_again() -> None:
    own = of_orders("abab", "a", "bc")
    assert takes.history_quantile(own, 0.5) == 2.0
    assert takes.history_quantile(own, 0.75) == 3.0
    assert takes.repeat_share(own) == pytest.approx(2 / 7)


@pytest.mark.parametrize("unit", ["ns", "us", "s"])
def test_days_between_days_of_activity(unit: str) -> None:
    """u: days 0, 0, 2, 3 have gaps 2 and 1; v: day 0, day 4; whoever comes once has none."""
    rows = (("u", "a", 1), ("u", "b", 5), ("u", "a", 49), ("u", "c", 72), ("v", "a", 23), ("v", "b", 96), ("w", "a", 0))
    own = Takes.of(log(*rows, unit=unit))
    assert takes.gap_quantile(own, 0.5) == 2.0
    assert takes.gap_quantile(own, 0.9) == pytest.approx(2.0 + 0.8 * 2.0)
    assert takes.gap_quantile(Takes.of(log(("u", "a", 0), ("u", "b", 23))), 0.5) is None


def test_who_has_left() -> None:
    """Of a horizon of 100 hours the last 25: u and v came before, v is still there; x, new in it, is not asked."""
    rows = (("u", "a", 0), ("v", "a", 10), ("v", "b", 75), ("x", "a", 100))
    assert takes.leavers(Takes.of(log(*rows))) == 0.5


def test_neighbours_are_counted_by_users_within_three_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """abcda: a has b, c, d, each once, though d stands at both ends of it; aa is none. bx: b has x."""
    item, neighbour, users = of_orders("abcda", "bx", "aab").neighbours
    names = "abcdx"
    found = {(names[i], names[n]): count for i, n, count in zip(item, neighbour, users, strict=True)}
    expected = {("a", "b"): 2.0, ("a", "c"): 1.0, ("a", "d"): 1.0, ("b", "c"): 1.0, ("b", "d"): 1.0, ("c", "d"): 1.0}
    both = {**expected, **{(two, one): count for (one, two), count in expected.items()}}
    assert found == {**both, ("b", "x"): 1.0, ("x", "b"): 1.0}
    assert takes.top_neighbours_share(of_orders("ab", "ac")) is None  # two co-visits are too few
    monkeypatch.setattr(takes, "COVISITS", 3)
    monkeypatch.setattr(takes, "NEIGHBOURS", 1)
    assert takes.top_neighbours_share(of_orders("ab", "ab", "ac")) == pytest.approx(2 / 3)


def test_the_lift_of_neighbours() -> None:
    """ab twice, cd twice: two co-visits of an item always agree; of all eight, each name twice: 8 of 56 pairs."""
    assert takes.neighbour_lift(of_orders("ab", "ab", "cd", "cd")) == pytest.approx(7.0)
    assert takes.neighbour_lift(of_orders("ab")) is None
    draw = np.random.default_rng(3)
    random = ["".join(draw.choice(list("abcdefghijklmnopqrst"), 2, replace=False)) for _ in range(4_000)]
    assert takes.neighbour_lift(of_orders(*random)) == pytest.approx(1.0, abs=0.1)


def test_the_size_of_a_log_does_not_move_the_lift() -> None:
    draw = np.random.default_rng(4)
    pairs = ["".join(draw.choice(list(group), 2, replace=False)) for group in ("abcd", "efgh", "ijkl") * 2_000]
    assert takes.neighbour_lift(of_orders(*pairs[:120])) == pytest.approx(
        takes.neighbour_lift(of_orders(*pairs)), rel=0.15
    )


def test_a_core_is_what_is_left_when_no_user_and_no_item_has_too_few() -> None:
    """w has one take: without it c has one, and without that v has one."""
    rows = (("u", "a", 0), ("u", "b", 1), ("t", "a", 0), ("t", "b", 1), ("v", "b", 0), ("v", "c", 1), ("w", "c", 0))
    own = Takes.of(log(*rows), least=2)
    assert len(own) == 4 and own.users.max() == own.items.max() == 1


def test_rows_stand_in_the_order_of_their_times_and_one_moment_tells_none() -> None:
    rows = (("u", "b", 2), ("u", "a", 1), ("u", "d", 3), ("u", "c", 3))
    assert Takes.of(log(*rows)).items.tolist() == [1, 0, 3, 2]  # a b c d, numbered by their first rows: b a d c
    shuffled = Takes.of(log(*rows[::-1]))
    assert measured(shuffled) == measured(Takes.of(log(*rows)))


def test_without_times_their_statistics_are_none_and_the_others_are_as_with_them() -> None:
    rows = log(*((f"u{n % 7}", f"i{n % 5}", 30 * n) for n in range(40)))
    with_times, without = measured(Takes.of(rows)), measured(Takes.of(rows.assign(event_time=pd.NaT)))
    timed = {"gap_days_median", "gap_days_p90", "leavers"}
    assert {name for name, value in without.items() if value is None} - timed == {"top_neighbours_share"}
    assert all(without[name] is None and with_times[name] is not None for name in timed)
    assert all(without[name] == with_times[name] for name in set(STATISTICS) - timed)


def test_a_log_with_some_times_missing_is_refused() -> None:
    rows = log(("u", "a", 0), ("u", "b", 1))
    rows.loc[1, "event_time"] = pd.NaT
    with pytest.raises(DataError, match="1 of 2 takes have no time") as refused:
        Takes.of(rows)
    assert "Leave those out" in str(refused.value)


@pytest.mark.parametrize(("rows", "least"), [((), 1), ((("u", "a", 0),), 2)])
def test_an_empty_log_is_refused(rows: tuple[tuple[str, str, int], ...], least: int) -> None:
    with pytest.raises(DataError, match="nothing to measure") as refused:
        Takes.of(log(*rows), least)
    assert f"Of {len(rows)} takes none is left" in str(refused.value)
