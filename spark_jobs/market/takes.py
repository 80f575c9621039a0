"""What a shop's log is like, in numbers that a simulated log and a real one both have.

A take is one event by which a user took an item: a purchase, a review, a click, whichever the log has or is asked for.
Logs are published in cores (each user and item with at least so many takes), so `of` can cut a log to one before it is
measured. Where a log tells no times its rows stand in order, and what needs times is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from infra.errors import DataError
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints

REACH = 3  # places of a history within which two items are visited together
NEIGHBOURS = 10
COVISITS = 50  # of an item, from which on its neighbours are counted: with few, any share is large
QUIET = 0.25  # of the horizon, at its end: who took nothing in it has left


class NothingToMeasure(DataError):
    """A log has no takes."""


@dataclass(frozen=True)
class Takes:
    """`users` and `items` [N] as numbers from 0 on, by user and then in order; `days` since 1970, None if not told."""

    users: Ints
    items: Ints
    days: Floats | None

    @classmethod
    def of(cls, log: pd.DataFrame, least: int = 1) -> Takes:
        """The takes of a log with user_id, item_id and perhaps event_time, cut to its `least`-core.

        Events of one user and moment stand in the order of their items: none is told.

        Raises:
            NothingToMeasure: no take is left.
            DataError: some have a time and some have none.
        """
        users, items = (pd.factorize(log[name])[0].astype(np.int64) for name in ("user_id", "item_id"))
        kept = _core(users, items, least)
        if len(kept) == 0:
            raise NothingToMeasure(
                "There is nothing to measure.",
                why=f"Of {len(log):,} takes none is left where each user and item must have {least}.",
                do="Simulate more rows or days, or name a log that has the event type that is asked for.",
            )
        days, order = _days(log), kept[np.lexsort((kept, users[kept]))]
        if days is not None:
            names = pd.factorize(log["item_id"], sort=True)[0]
            order = kept[np.lexsort((names[kept], days[kept], users[kept]))]
        users, items = (np.unique(one[order], return_inverse=True)[1] for one in (users, items))
        return cls(users, items, None if days is None else days[order])

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def neighbours(self) -> tuple[Ints, Ints, Floats]:
        """Item, neighbour and how many users visited both together, by item; each pair both ways."""
        size, found = int(self.items.max()) + 1, [np.empty(0, dtype=np.int64)]
        for places in range(1, REACH + 1):
            one, two = self.items[:-places], self.items[places:]
            both = (self.users[:-places] == self.users[places:]) & (one != two)
            low, high = np.minimum(one, two)[both], np.maximum(one, two)[both]
            found.append((self.users[:-places][both] * size + low) * size + high)
        once = np.unique(np.concatenate(found)) % (size * size)
        pairs, users = np.unique(once, return_counts=True)
        item, neighbour = np.concatenate([pairs // size, pairs % size]), np.concatenate([pairs % size, pairs // size])
        order = np.argsort(item, kind="stable")
        return item[order], neighbour[order], np.concatenate([users, users])[order].astype(np.float64)


def _core(users: Ints, items: Ints, least: int) -> Ints:
    """Rows that are left when users and items with fewer are taken out until there are none."""
    rows = np.arange(len(users))
    while least > 1 and len(rows):
        enough = np.ones(len(rows), dtype=bool)
        for names in (users[rows], items[rows]):
            enough &= np.bincount(names)[names] >= least
        if enough.all():
            break
        rows = rows[enough]
    return rows


def _days(log: pd.DataFrame) -> Floats | None:
    if "event_time" not in log or log["event_time"].isna().all():
        return None
    missing = int(log["event_time"].isna().sum())
    if missing:
        raise DataError(
            "The order of the log is not known.",
            why=f"{missing:,} of {len(log):,} takes have no time.",
            do="Leave those out, or take the times of all away if the rows stand in order.",
        )
    times = pd.to_datetime(log["event_time"], utc=True)
    return np.asarray((times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1), dtype=np.float64)


def popularity_exponent(takes: Takes) -> float | None:
    """s of count ~ rank^-s, by least squares of logarithms over the first tenth of the items taken, at least ten."""
    counts = np.sort(np.bincount(takes.items))[::-1]
    top = counts[: max(10, len(counts) // 10)]
    if len(top) < 2:
        return None
    return -float(np.polyfit(np.log(np.arange(1, len(top) + 1)), np.log(top), 1)[0])


def gini(takes: Takes) -> float:
    """Of the takes over the items that were taken at all: 0 where all have as many."""
    counts = np.sort(np.bincount(takes.items)).astype(np.float64)
    ranks = np.arange(1, len(counts) + 1)
    return float((2 * ranks - len(counts) - 1) @ counts / (len(counts) * counts.sum()))


def top_percent_share(takes: Takes) -> float:
    """Share of the takes that the most taken 1 % of the items (rounded up) have."""
    counts = np.sort(np.bincount(takes.items))[::-1]
    return float(counts[: -(-len(counts) // 100)].sum() / counts.sum())


def history_quantile(takes: Takes, share: float) -> float:
    """Quantile of the takes a user, linear between two."""
    return float(np.quantile(np.bincount(takes.users), share))


def repeat_share(takes: Takes) -> float:
    """Share of the takes whose user took the item before."""
    return 1.0 - len(np.unique(takes.users * (takes.items.max() + 1) + takes.items)) / len(takes)


def gap_quantile(takes: Takes, share: float) -> float | None:
    """Quantile of the days from one day on which a user took something (UTC) to their next; None without a second."""
    if takes.days is None:
        return None
    day = np.floor(takes.days)
    gaps = np.diff(day)[np.diff(takes.users) == 0]
    gaps = gaps[gaps > 0]
    return float(np.quantile(gaps, share)) if len(gaps) else None


def leavers(takes: Takes) -> float | None:
    """Of the users with a take before the last quarter of the log's horizon: share who have none in it."""
    if takes.days is None:
        return None
    first, end = takes.days.min(), takes.days.max()
    edge = end - QUIET * (end - first)
    early, late = (np.unique(takes.users[mask]) for mask in (takes.days < edge, takes.days >= edge))
    return float(1.0 - np.isin(early, late).mean()) if len(early) else None


def top_neighbours_share(takes: Takes) -> float | None:
    """Of all co-visits of items that have at least 50: share with each one's ten most frequent neighbours.

    A co-visit of a with b: one user in whose history b stands at most 3 places from a. A share of a small log is
    larger, as fewer neighbours are seen: `neighbour_lift` is not so.
    """
    item, _, count = takes.neighbours
    mass = np.bincount(item, count)
    order = np.lexsort((-count, item))
    place = np.arange(len(item)) - np.searchsorted(item, item)
    chosen = mass[item[order]] >= COVISITS
    total = count[order][chosen].sum()
    return float(count[order][chosen & (place < NEIGHBOURS)].sum() / total) if total else None


def neighbour_lift(takes: Takes) -> float | None:
    """How many times likelier two co-visits of one item name the same neighbour than two of any items do.

    Simpson's chance that two draws without replacement agree: it has no bias of size. Mean over items by co-visits.
    """
    item, neighbour, count = takes.neighbours
    own, other = np.bincount(item, count), np.bincount(neighbour, count)
    pairs, total = own * (own - 1), other.sum()
    both = pairs > 0
    by_chance = (other * (other - 1)).sum() / max(total * (total - 1), 1.0)
    if not both.any() or by_chance == 0:
        return None
    agree = np.bincount(item, count * (count - 1))[both] / pairs[both]
    return float(np.average(agree, weights=own[both]) / by_chance)


STATISTICS: Mapping[str, Callable[[Takes], float | None]] = {
    "popularity_exponent": popularity_exponent,
    "gini": gini,
    "top_percent_share": top_percent_share,
    "history_median": lambda takes: history_quantile(takes, 0.5),
    "history_p90": lambda takes: history_quantile(takes, 0.9),
    "history_p99": lambda takes: history_quantile(takes, 0.99),
    "repeat_share": repeat_share,
    "gap_days_median": lambda takes: gap_quantile(takes, 0.5),
    "gap_days_p90": lambda takes: gap_quantile(takes, 0.9),
    "leavers": leavers,
    "top_neighbours_share": top_neighbours_share,
    "neighbour_lift": neighbour_lift,
}
"""In the order of the card."""
SHARES = frozenset({"gini", "top_percent_share", "repeat_share", "leavers", "top_neighbours_share"})
"""Those from 0 to 1."""


def measured(takes: Takes) -> dict[str, float | None]:
    """All statistics of a log."""
    return {name: statistic(takes) for name, statistic in STATISTICS.items()}
