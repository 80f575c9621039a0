"""What a query finds in the day's catalogue: the items whose texts have its words, and what kind they are.

A search box asks for enough of the words, not for all: an item is found by a share of the query's words by weight. A
word weighs 1 + ln((1 + items) / (1 + items with it)), one that no item has the most.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
_WORD = re.compile(r"\w+")
_SHORTEST_PLURAL = 4  # letters


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, of a plural in -s without it; its order and repetitions stay."""
    found = _WORD.findall(text.lower())
    return [
        word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") and not word.endswith("ss") else word
        for word in found
    ]


@dataclass(frozen=True)
class CatalogueWords:
    """The items of a day by the words of their texts. `kinds` [items]: the narrowest category, empty where unknown."""

    items_of: Mapping[str, Places]
    kinds: tuple[str, ...]
    _found: dict[tuple[str, float], Places] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> CatalogueWords:
        """Of items by text and kind."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        kinds = list[str]()
        for place, (text, kind) in enumerate(items):
            kinds.append(kind)
            for word in set(words_of(text)):
                places[word].append(place)
        return cls({word: np.array(own, dtype=np.int64) for word, own in places.items()}, tuple(kinds))

    def found(self, query: str, share: float = 1.0) -> Places:
        """The places of the items that have at least this share of a query's words by weight, rising; none for a query
        without words."""
        key = " ".join(sorted(set(words_of(query)))), share
        if key not in self._found:
            self._found[key] = self._with(key[0].split(), share)
        return self._found[key]

    def kind(self, query: str) -> str:
        """The commonest kind of what has all its words, of equally many the first in the alphabet; empty for none."""
        counts = Counter(kind for place in self.found(query).tolist() if (kind := self.kinds[place]))
        return min(counts, key=lambda kind: (-counts[kind], kind), default="")

    def _with(self, words: list[str], share: float) -> Places:
        nothing = np.zeros(0, dtype=np.int64)
        if not words:
            return nothing
        lists = [self.items_of.get(word, nothing) for word in words]
        weights = [1.0 + math.log((1 + len(self.kinds)) / (1 + len(own))) for own in lists]
        places, held = np.unique(np.concatenate(lists), return_inverse=True)
        sums = np.bincount(held, np.repeat(weights, [len(own) for own in lists]), len(places))
        return np.asarray(places[sums >= share * sum(weights) * (1.0 - 1e-9)], dtype=np.int64)
