"""What a query finds in the day's catalogue: the items whose texts have its words, and what kind they are.

A search box asks for enough of the words, not for all: an item is found by a share of the query's words by weight. A
word weighs 1 + ln((1 + items) / (1 + items with it)), one that no item has the most.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
# To `re` a vowel sign of Hindi or an accent by itself is no letter, and would part a word.
_MARKS = "".join(sign for sign in map(chr, range(0x300, 0x10000)) if unicodedata.category(sign)[0] == "M")
_WORD = re.compile(rf"[\w{_MARKS}]+")
_SHORTEST_PLURAL = 4  # letters
KEPT = 2**15
"""On the last so many queries it is kept how much is found, some 7 MiB, and of what kind that is."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case with compatible characters as one (NFKC), of a plural in -s without it. Their
    order and repetitions stay."""
    found = _WORD.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())
    return [
        word[:-1] if len(word) >= _SHORTEST_PLURAL and word.endswith("s") and not word.endswith("ss") else word
        for word in found
    ]


@dataclass(frozen=True)
class CatalogueWords:
    """The items of a day by the words of their texts. `kinds` [items]: the narrowest category, empty where unknown.

    Of what a query finds its number and its kind are kept, never the places: those of a common word are all items.
    """

    items_of: Mapping[str, Places]
    kinds: tuple[str, ...]

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
        return self._with(_asked(query).split(), share)

    def number(self, query: str, share: float = 1.0) -> int:
        """How many those are."""
        return self._number(_asked(query), share)

    def kind(self, query: str) -> str:
        """The commonest kind of what has all its words, of equally many the first in the alphabet; empty for none."""
        return self._kind(_asked(query))

    @cached_property
    def _number(self) -> Callable[[str, float], int]:
        return lru_cache(KEPT)(lambda words, share: len(self._with(words.split(), share)))

    @cached_property
    def _kind(self) -> Callable[[str], str]:
        return lru_cache(KEPT)(self._commonest)

    def _commonest(self, words: str) -> str:
        counts = Counter(kind for place in self._with(words.split(), 1.0).tolist() if (kind := self.kinds[place]))
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


def _asked(query: str) -> str:
    """Its words, each once, in the order of the alphabet: queries of the same words find the same."""
    return " ".join(sorted(set(words_of(query))))
