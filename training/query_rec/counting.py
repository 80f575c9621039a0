"""Rows that only count: what stands beside every model in every table, and fills up what a filter leaves empty.

`again`: what the person has searched for before. `popular`: what is searched for most. `category`: the same in the
kinds of things that the person had to do with. `co_click`: what others searched for when they clicked on what the
person did. `openings`: how the titles of those things begin. The last thing counts most: the weight of the so many-th
last is one over its number (INFERRED).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from training.query_rec.item_phrases import item_phrase
from training.query_rec.query_lists import plain

AGAIN = "again"
"""The row of one's own searches."""
POPULAR = "popular"
"""The row of what is searched for most."""
ROWS = (AGAIN, "co_click", "category", "openings", POPULAR)
"""The rows of a table, from the most personal on."""


@dataclass(frozen=True)
class Thing:
    """What the catalogue says of an item."""

    title: str
    brand: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class QueryCounts:
    """How often each query was searched for, in all and for the items clicked of what it found: of training days.

    Queries are counted whatever their case, and shown as they were most often written.
    """

    things: Mapping[str, Thing]
    asked: Counter[str] = field(default_factory=Counter)
    of_item: Mapping[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    of_category: Mapping[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @classmethod
    def of(cls, searches: Iterable[tuple[str, str | None]], things: Mapping[str, Thing]) -> QueryCounts:
        """Of queries with the item clicked, None: none was."""
        known, found = list(searches), cls(things)
        written = _written(query for query, _ in known)
        for query, item in known:
            if not (words := plain(query)):
                continue
            shown = written[words.lower()]
            found.asked[shown] += 1
            if item is not None:
                found.of_item[item][shown] += 1
                if (thing := things.get(item)) and thing.category:
                    found.of_category[thing.category][shown] += 1
        return found

    def rows(self, items: Sequence[str], searches: Sequence[str], k: int) -> Mapping[str, Sequence[str]]:
        """By its name, what each row says of who had to do with `items` and made `searches`, oldest first. The most
        personal one is first: in this order empty places are filled."""
        return {name: getattr(self, name)(searches if name == AGAIN else items, k) for name in ROWS}

    def again(self, searches: Sequence[str], k: int) -> list[str]:
        """The last of one's own searches, each once."""
        return filled_up([], [[query for query in map(plain, reversed(searches)) if query]], k)

    def popular(self, items: Sequence[str], k: int) -> list[str]:
        """The `k` most frequent queries, whoever asks."""
        return _best(self.asked, k)

    def category(self, items: Sequence[str], k: int) -> list[str]:
        """Those of the kinds of `items`, oldest first."""
        kinds = [thing.category for item in items if (thing := self.things.get(item)) and thing.category]
        return _best(_weighed(kinds, lambda kind: self.of_category.get(kind)), k)

    def co_click(self, items: Sequence[str], k: int) -> list[str]:
        """Those that led others to `items`, oldest first."""
        return _best(_weighed(items, lambda item: self.of_item.get(item)), k)

    def openings(self, items: Sequence[str], k: int, words: int = 3) -> list[str]:
        """The first `words` of the phrases of `items`, oldest first, in lower case, as people type."""
        things = [thing for item in reversed(items) if (thing := self.things.get(item))]
        found = (item_phrase(thing.title, thing.brand, words).lower() for thing in things)
        return [query for query in dict.fromkeys(found) if query][:k]


def filled_up(lists: Sequence[str], others: Iterable[Sequence[str]], k: int) -> list[str]:
    """`lists` and behind it what `others` have that it has not, whatever the case, up to `k`."""
    found: dict[str, str] = {}
    for own in (lists, *others):
        for query in own:
            found.setdefault(query.lower(), query)
    return list(found.values())[:k]


def _written(queries: Iterable[str]) -> Mapping[str, str]:
    """Each query in lower case as it was most often written; of equally many the first in the order of the alphabet."""
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    for query in map(plain, queries):
        ways[query.lower()][query] += 1
    return {query: min(own, key=lambda way: (-own[way], way)) for query, own in ways.items()}


def _weighed(keys: Sequence[str], counts: Callable[[str], Counter[str] | None]) -> Mapping[str, float]:
    """The shares of each key's queries, added up by the weights of the keys, the last one first."""
    total: dict[str, float] = defaultdict(float)
    for number, key in enumerate(reversed(keys), start=1):
        if own := counts(key):
            whole = own.total()
            for query, count in own.items():
                total[query] += count / whole / number
    return total


def _best(counts: Mapping[str, float], k: int) -> list[str]:
    """Of equally many the first in the order of the alphabet."""
    return nsmallest(k, counts, key=lambda query: (-counts[query], query))
