"""What people of the market search for: real queries of a lake, and wordings of their own, in the items' text space.

Own wordings are of a thing's own words, so there are searches at a shop that has no queries; what has no words is asked
for by its id. A real query that no item of the catalogue answers is nobody's wish and is not among them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as STOP

from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints, once
from spark_jobs.market.parameters import Parameters, QueryParameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.space import Vectors

_READ = 16  # words of a thing that people might use


@dataclass(frozen=True)
class Queries:
    """Queries [Q], each text once, the `real` first ones asked by real people: their `vectors` [Q, D] and `keys`, which
    draws belong to: those of a text are the same beside any others.

    `near` [I, C]: what people search for who wish for an item, likeliest first, with `logits`; `items` [Q, N]: what a
    query finds, nearest first; -1 where there are fewer. `counted` [Q], as a shop counts it: the logarithm of one more
    than how often it is asked, in units of the mean.
    """

    texts: Sequence[str]
    real: int
    keys: Ints
    vectors: Vectors
    near: Ints
    logits: Floats
    items: Ints
    counted: Floats

    @classmethod
    def of(cls, shop: Shop, parameters: Parameters) -> Queries:
        """Those of a shop."""
        own = parameters.queries
        asked = sorted(set(shop.asked))
        query, item = shop.space.answers(asked, shop.texts, own.answered)
        kept, query = np.unique(query, return_inverse=True)
        real = [asked[number] for number in kept]
        wordings = _own_words(shop, own)
        numbers, texts = pd.factorize(np.array([*real, *wordings.ravel()], dtype=object))
        vectors = shop.space.placed(texts)
        vectors[: len(real)] *= shop.space.known(real)[:, None].astype(np.float32)
        near = np.einsum("nd,nd->n", vectors[query], shop.vectors[item])
        known = _best(item, query, near, (len(shop.item_ids), own.near))
        their = np.asarray(numbers[len(real) :], dtype=np.int64).reshape(wordings.shape)
        wished = once(np.concatenate([known, their], axis=1))
        logits = _logits(shop, vectors, wished, len(real), own)
        order = np.argsort(-logits, axis=1, kind="stable")
        wished, logits = np.take_along_axis(wished, order, axis=1), np.take_along_axis(logits, order, axis=1)
        items = _found(shop, _best(query, item, near, (len(real), shop.near.shape[1] + 1)), their, len(texts))
        keys = np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.int64)
        counted = _counted(wished, logits, parameters.utility.appeal * shop.appeal, len(texts))
        return cls(texts.tolist(), len(real), keys, vectors, wished, logits, items, counted)

    def __len__(self) -> int:
        return len(self.texts)

    def counted_on(self, days: Ints, queries: Ints | slice = slice(None)) -> Floats:
        """As of a shop's items, but what people search for does not turn."""
        return self.counted[queries]

    def told_apart(self, days: Ints) -> Ints:
        """As of a shop's items: all days are alike."""
        return np.zeros_like(days)

    def typed(self, wish: Ints, person: Ints, session: int, draws: Draws) -> Ints:
        """What people [U] search for who wish for the items `wish`."""
        near = self.near[wish]
        noise = draws.gumbel("query", person[:, None], session, self.keys[near.clip(0)])
        best = np.argmax(np.where(near >= 0, self.logits[wish] + noise, -np.inf), axis=1)
        return np.asarray(near[np.arange(len(wish)), best])


def _own_words(shop: Shop, own: QueryParameters) -> np.ndarray:
    """Wordings [I, own] of each item: some of its words in their order, the front ones likelier."""
    read = shop.space.words
    words = [[word for word in dict.fromkeys(read(text)) if word not in STOP][:_READ] for text in shop.texts]
    item, way, place = np.ix_(np.arange(len(words)), np.arange(own.own), np.arange(_READ))
    # The smallest of exponentials with these rates are a draw without putting back.
    late = shop.draws.exponential("word", item, way, place) * (2.0 + place)
    lengths = np.array([len(one) for one in words])[:, None, None]
    late = np.where(place < lengths, late, np.inf)
    many = 2 + (shop.draws.uniform("words", item, way) * (own.words - 1)).astype(np.int64)
    ranks = np.argsort(np.argsort(late, axis=2), axis=2)
    taken = (ranks < many) & (place < lengths)
    found = np.empty(taken.shape[:2], dtype=object)
    for at in np.ndindex(*found.shape):
        own_words = [words[at[0]][place] for place in np.flatnonzero(taken[at])]
        found[at] = " ".join(own_words) or shop.item_ids[at[0]]
    return found


def _best(rows: Ints, columns: Ints, scores: Vectors, shape: tuple[int, int]) -> Ints:
    """Of pairs the best columns of each row, -1 where there are fewer."""
    order = np.lexsort((columns, -np.round(scores, 4), rows))  # the last digits are the processor's
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    found, kept = np.full(shape, -1), place < shape[1]
    found[rows[kept], place[kept]] = columns[kept]
    return found


def _logits(shop: Shop, vectors: Vectors, wished: Ints, real: int, own: QueryParameters) -> Floats:
    cosines = np.einsum("id,icd->ic", shop.vectors, vectors[wished.clip(0)]).astype(np.float64)
    return np.where(wished >= 0, own.precise * cosines + own.real * (wished < real), -np.inf)


def _found(shop: Shop, answers: Ints, wordings: Ints, count: int) -> Ints:
    """Items [Q, N]: those that answer a real query [R, N] and what is near the best of them; for a thing's own words
    the thing and what is near it, for those of several things the first one's."""
    things = np.concatenate([np.arange(len(shop.near))[:, None], shop.near], axis=1)
    items = np.full((count, things.shape[1]), -1)
    numbers, first = np.unique(wordings, return_index=True)
    items[numbers] = things[first // wordings.shape[1]]
    either = once(np.concatenate([answers, things[answers[:, 0]]], axis=1))
    order = np.argsort(either < 0, axis=1, kind="stable")[:, : things.shape[1]]
    items[: len(answers)] = np.take_along_axis(either, order, axis=1)
    return items


def _counted(near: Ints, logits: Floats, appeal: Floats, count: int) -> Floats:
    """From who wishes for what: the loved things, by more people."""
    wishes = np.exp(appeal)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    asked = (wishes / wishes.sum())[:, None] * weights / weights.sum(axis=1, keepdims=True)
    there = near >= 0
    return np.log1p(count * np.bincount(near[there], asked[there], count))
