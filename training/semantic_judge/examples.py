"""What is judged: user states, candidates, and pairs of which one was preferred, in columns.

A judge sees `Cases`: who the user was on a day (history, ratings, profile, context) and an item with what was known of
it on that day. What happened then and later is `Hindsight`, a type of its own that only teachers and evaluations take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.core.errors import DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SUBSETS = ("train", "valid", "test")
EPOCH = date(1970, 1, 1)
_NOTHING = np.empty(0, dtype=np.int64)
_DAYS = 1 << 16  # more than there are between 1970 and 2149


@dataclass(frozen=True)
class Item:
    """What the catalogue says of an item. `category`: the narrowest one; None: not known."""

    item_id: str
    title: str | None
    brand: str | None
    category: str | None
    price: float | None
    text: str = ""


@dataclass(frozen=True)
class UserState:
    """All that a judge may know of a user: what came strictly before the day `as_of`, oldest first.

    `ratings`: of the history, None where none was given. `context`: what is looked for; None where nobody says.
    """

    user_id: str
    as_of: date
    history: tuple[str, ...]
    ratings: tuple[float | None, ...]
    profile: str | None = None
    context: str | None = None


@dataclass(frozen=True)
class Candidate:
    """An item to judge, with what others had made of it before the day: mean rating and events of a year."""

    item_id: str
    mean_rating: float | None = None
    events: float | None = None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items by number."""

    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Of each item id."""
        return {item.item_id: number for number, item in enumerate(self.items)}

    @cached_property
    def brands(self) -> Ints:
        """The number of each item's brand, -1 where it has none: [items]."""
        return _numbered([item.brand for item in self.items])

    @cached_property
    def categories(self) -> Ints:
        """The number of each item's narrowest category, -1 where it has none: [items]."""
        return _numbered([item.category for item in self.items])

    @cached_property
    def log_prices(self) -> Floats:
        """Natural logarithm of each price, NaN where it is not known or not above 0: [items]."""
        prices = np.array([item.price or np.nan for item in self.items], dtype=np.float32)
        return np.log(np.where(prices > 0, prices, np.nan)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class States:
    """User states in columns: state s has the items `history[starts[s] : starts[s + 1]]` of the catalogue, newest last.

    `ratings` [all] of the history, NaN where none was given; `days` since 1970.
    """

    users: Sequence[str]
    days: Ints
    starts: Ints
    history: Ints
    ratings: Floats
    profiles: Sequence[str | None]
    contexts: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def of(cls, catalogue: Catalogue, users: Sequence[UserState]) -> States:
        """Each of these, in their order; items of histories that the catalogue does not have are passed over."""
        known = [_known(user, catalogue) for user in users]
        lengths = np.array([len(own) for own in known], dtype=np.int64)
        flat = [event for own in known for event in own]
        return cls(
            [user.user_id for user in users],
            np.array([(user.as_of - EPOCH).days for user in users], dtype=np.int64),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([item for item, _ in flat], dtype=np.int64),
            np.array([rating for _, rating in flat], dtype=np.float32),
            [user.profile for user in users],
            [user.context for user in users],
        )

    def chosen(self, rows: Ints) -> States:
        """Those at these places."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        words = ([column[row] for row in rows.tolist()] for column in (self.users, self.profiles, self.contexts))
        users, profiles, contexts = words
        return States(users, self.days[rows], starts, self.history[events], self.ratings[events], profiles, contexts)

    def state(self, number: int, catalogue: Catalogue) -> UserState:
        """One of them as an object."""
        own = slice(int(self.starts[number]), int(self.starts[number + 1]))
        ids = tuple(catalogue.items[item].item_id for item in self.history[own].tolist())
        ratings = tuple(None if np.isnan(rating) else float(rating) for rating in self.ratings[own])
        day = EPOCH + timedelta(days=int(self.days[number]))
        return UserState(self.users[number], day, ids, ratings, self.profiles[number], self.contexts[number])


@dataclass(frozen=True, eq=False)
class Cases:
    """What a judge is asked, n times: `state` [n] of `states` and `item` [n] of `catalogue`, with what was known of the
    item before the day: `mean_rating` [n] and `events` [n] of a year, NaN where there were none."""

    catalogue: Catalogue
    states: States
    state: Ints
    item: Ints
    mean_rating: Floats
    events: Floats

    def __len__(self) -> int:
        return len(self.state)

    def chosen(self, rows: Ints) -> Cases:
        """Those at these places."""
        columns = {name: getattr(self, name)[rows] for name in ("state", "item", "mean_rating", "events")}
        return replace(self, **columns)

    def user(self, row: int) -> UserState:
        """The user state of one case."""
        return self.states.state(int(self.state[row]), self.catalogue)

    def judged(self, row: int) -> Item:
        """The item of one case."""
        return self.catalogue.items[int(self.item[row])]

    @classmethod
    def of(cls, catalogue: Catalogue, users: Sequence[UserState], candidates: Sequence[Candidate]) -> Cases:
        """One case for each user and candidate at the same place; items of histories that the catalogue does not have
        are passed over. Raises DataError for a candidate that it does not have."""
        gone = sorted({one.item_id for one in candidates} - catalogue.numbers.keys())
        if gone:
            do = "judge only items that the judge's folder knows, or train it on a newer catalogue"
            raise DataError(f"{len(gone)} items are not in the judge's catalogue", where=f"items {gone[:5]}", do=do)
        places = dict.fromkeys(users)
        numbers = {user: number for number, user in enumerate(places)}
        return cls(
            catalogue,
            States.of(catalogue, list(places)),
            np.array([numbers[user] for user in users], dtype=np.int64),
            np.array([catalogue.numbers[one.item_id] for one in candidates], dtype=np.int64),
            _column([one.mean_rating for one in candidates]),
            _column([one.events for one in candidates]),
        )


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What happened on the day and later, which no judge may read: case c's user took the items
    `later[starts[c] : starts[c + 1]]` in the 90 days after, oldest first. Of the item itself, `rating` [n] is what the
    user gave it, NaN where there is none, `taken` [n] whether the user took it that day, and `passed` [n] whether it
    was shown, seen and passed over."""

    starts: Ints
    later: Ints
    rating: Floats
    taken: NDArray[np.bool_]
    passed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Examples:
    """Cases with their hindsight; `subset` [n] is a place in `SUBSETS`."""

    cases: Cases
    hindsight: Hindsight
    subset: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.cases)

    def rows_of(self, subset: str) -> Ints:
        """The places of the examples of a subset."""
        return np.flatnonzero(self.subset == SUBSETS.index(subset))

    def find(self, users: Sequence[str], days: Ints, items: Sequence[str]) -> Ints:
        """The place of the example of each user, day (since 1970) and item; -1 where there is none: [asked]."""
        numbers = np.array([self._users.get(user, -1) for user in users], dtype=np.int64)
        wanted = self._keys(numbers, days, np.array([self.cases.catalogue.numbers.get(item, -1) for item in items]))
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1, dtype=np.int64)
        order, keys = self._ordered
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((keys[place] == wanted) & (wanted >= 0), order[place], -1)

    def who_and_what(self) -> Ints:
        """One number for the user and the item of each example, whatever the day: [n]."""
        return self.who() * len(self.cases.catalogue) + self.cases.item

    def who(self) -> Ints:
        """One number for the user of each example, from 0 on: [n]."""
        return self._users_of_states[self.cases.state]

    @cached_property
    def _users_of_states(self) -> Ints:
        return np.array([self._users[user] for user in self.cases.states.users], dtype=np.int64)

    @cached_property
    def _users(self) -> Mapping[str, int]:
        return {user: number for number, user in enumerate(dict.fromkeys(self.cases.states.users))}

    @cached_property
    def _ordered(self) -> tuple[Ints, Ints]:
        """The examples in the order of their keys, and these."""
        states, state = self.cases.states, self.cases.state
        keys = self._keys(self._users_of_states[state], states.days[state], self.cases.item)
        order = np.argsort(keys, kind="stable")
        return order, keys[order]

    def _keys(self, users: Ints, days: Ints, items: Ints) -> Ints:
        """One number for each; -1 where user or item is -1."""
        known = (users >= 0) & (items >= 0)
        return np.where(known, (users * _DAYS + days) * len(self.cases.catalogue) + items, -1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Preferences: the example at `preferred` [pairs] was preferred to the one at `other` [pairs], same user and day.

    `source` [pairs]: `rating` (real stars) or `exposure` (what was clicked below what was not).
    """

    preferred: Ints
    other: Ints
    source: NDArray[np.str_]
    subset: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.preferred)

    def chosen(self, rows: Ints | NDArray[np.bool_]) -> Pairs:
        """Those at these places, or where it is true."""
        return Pairs(*(column[rows] for column in vars(self).values()))

    def of_subset(self, subset: str) -> Pairs:
        """Those of `train`, `valid` or `test`."""
        return self.chosen(self.subset == SUBSETS.index(subset))


def rows_to_learn(examples: Examples, pairs: Pairs, subset: str) -> Ints:
    """The examples of a part, without those whose user and item a pair of a later part asks about.

    A pair is told apart by the day on which both of its ratings were there, so a training row may hold one of them.
    """
    parts = [_NOTHING, *(rows for part in SUBSETS[SUBSETS.index(subset) + 1 :] for rows in _members(pairs, part))]
    later = np.concatenate(parts)
    keys = examples.who_and_what()
    rows = examples.rows_of(subset)
    return rows[~np.isin(keys[rows], keys[later])]


def _members(pairs: Pairs, subset: str) -> tuple[Ints, Ints]:
    own = pairs.of_subset(subset)
    return own.preferred, own.other


def _numbered(words: Sequence[str | None]) -> Ints:
    number = {word: place for place, word in enumerate(dict.fromkeys(word for word in words if word))}
    return np.array([number.get(word or "", -1) for word in words], dtype=np.int64)


def _known(user: UserState, catalogue: Catalogue) -> list[tuple[int, float]]:
    """The events of a history that are of the catalogue: item number and rating, NaN where none was given."""
    events = zip(user.history, user.ratings, strict=True)
    return [
        (catalogue.numbers[item], np.nan if rating is None else rating)
        for item, rating in events
        if item in catalogue.numbers
    ]


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)
