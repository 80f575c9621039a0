"""What a query finds in the day's catalogue: the items whose texts have all of its words, and what kind they are."""

from __future__ import annotations

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
    _found: dict[str, Places] = field(default_factory=dict, repr=False)

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

    def found(self, query: str) -> Places:
        """The places of the items that have all words of a query, rising; none for a query without words."""
        key = " ".join(sorted(set(words_of(query))))
        if key not in self._found:
            self._found[key] = self._with_all(key.split())
        return self._found[key]

    def kind(self, query: str) -> str:
        """The commonest kind of what a query finds, of equally many the first in the alphabet; empty for none."""
        counts = Counter(kind for place in self.found(query).tolist() if (kind := self.kinds[place]))
        return min(counts, key=lambda kind: (-counts[kind], kind), default="")

    def _with_all(self, words: list[str]) -> Places:
        nothing = np.zeros(0, dtype=np.int64)
        lists = sorted((self.items_of.get(word, nothing) for word in words), key=len)
        if not lists:
            return nothing
        found = lists[0]
        for own in lists[1:]:
            found = found[np.isin(found, own, assume_unique=True)]
        return found
