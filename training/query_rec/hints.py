"""From what a model wrote to what is shown: a filter, and counted queries where it leaves a place empty.

A language model of this size writes some queries that nobody would type: what is improbable by its own account, has no
word with anything that the person saw in common, finds too little in the day's catalogue, or is not to be shown, goes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from common.query_text import normalised
from training.query_rec.catalogue_words import CatalogueWords, words_of
from training.query_rec.counting import AGAIN
from training.query_rec.prompts import Behaviours
from training.query_rec.query_lists import plain

MODEL = "model"
"""The source of a hint that the model wrote; those of the others are the rows of `counting`."""


@dataclass(frozen=True)
class FilterConfig:
    """All INFERRED. `log_prob`: the least mean log-prob of a token, in nats, by the model that wrote it. `shared`: a
    written query has at least so many words in common with what the person did; who did nothing is let off. `items`: a
    hint finds so many items of the day's catalogue, by the share `answered` of its words (see `CatalogueWords`); `own`:
    so many are enough for what a person searched for themselves. `longest`: characters. `unsafe`: words that no hint
    has, whatever their case, width and accents."""

    log_prob: float = -4.0
    shared: int = 1
    items: int = 4
    own: int = 1
    answered: float = 0.5
    longest: int = 60
    unsafe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A query as a model wrote it, with the mean log-prob of its tokens."""

    query: str
    log_prob: float


@dataclass(frozen=True)
class Hint:
    """A query to be shown, and where it came from: `model`, or a row that counts."""

    query: str
    source: str


def same_query(one: str, other: str) -> bool:
    """Whether two texts are one query, however they are written; what has no words is none."""
    return bool(known := normalised(one)) and known == normalised(other)


@dataclass(frozen=True)
class HintFilter:
    """What may be shown, in the catalogue of a day."""

    config: FilterConfig
    catalogue: CatalogueWords

    def refused(self, query: str, source: str = MODEL) -> str:
        """Why nobody is shown a query of this source; empty where it may be: `broken` (a half character, a sign
        that steers the text, nothing), `long`, `stutters` (a word three times), `wordless` (numbers alone, which mean
        something only to who has searched for them), `unsafe`, `unservable`."""
        if not plain(query) or "\ufffd" in query or any(map(_steers, query)):
            return "broken"
        if len(query) > self.config.longest:
            return "long"
        if max(Counter(words_of(query)).values(), default=0) > _TWICE:
            return "stutters"
        if source != AGAIN and not any(map(str.isalpha, query)):
            return "wordless"
        if self._unsafe.intersection(words_of(_undressed(query))):
            return "unsafe"
        return "" if self._finds(query, self.config.own if source == AGAIN else self.config.items) else "unservable"

    def servable(self, query: str) -> bool:
        """Whether it finds enough in the day's catalogue."""
        return self._finds(query, self.config.items)

    def _finds(self, query: str, items: int) -> bool:
        return self.catalogue.number(query, self.config.answered) >= items

    def refused_of(self, written: Written, person: Behaviours) -> str:
        """The same of what a model wrote for this person, and `improbable`, `unrelated`."""
        if reason := self.refused(written.query):
            return reason
        if not written.log_prob >= self.config.log_prob:
            return "improbable"
        seen = {word for content in person.contents for word in words_of(content)}
        shared = seen.intersection(words_of(written.query))
        return "unrelated" if seen and len(shared) < self.config.shared else ""

    def kept(self, written: Iterable[Written], person: Behaviours) -> list[str]:
        """What stays of what a model wrote for this person."""
        return [own.query for own in written if not self.refused_of(own, person)]

    def shown(self, rows: Mapping[str, Iterable[str]], k: int, asked: str = "") -> list[Hint]:
        """At most `k` hints, each once whatever its case: of the rows by their source, in their order, what may be
        shown, and is not what was `asked` for just now."""
        found: dict[str, Hint] = {}
        for source, queries in rows.items():
            if len(found) >= k:
                break
            for query in queries:
                if not self.refused(query, source) and not same_query(query, asked):
                    found.setdefault(query.lower(), Hint(query, source))
        return list(found.values())[:k]

    @cached_property
    def _unsafe(self) -> frozenset[str]:
        return frozenset(word for unsafe in self.config.unsafe for word in words_of(_undressed(unsafe)))


_TWICE = 2
_STEERING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, marks of direction, halves of pairs, unassigned
_JOINERS = frozenset("\u200c\u200d")  # between letters of Persian and Hindi, and parts of an emoji


def _steers(sign: str) -> bool:
    return unicodedata.category(sign) in _STEERING and sign not in _JOINERS


def _undressed(text: str) -> str:
    """Its letters without width, accents and joiners, in small: what is not to be said is not said in any dress."""
    signs = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in signs if unicodedata.category(sign)[0] != "M" and sign not in _JOINERS).casefold()
