"""The shop of the market: a real catalogue in numbers, and what is assumed of it: appeal, stock, bids."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.errors import DataError
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.space import Space, Vectors

_SCORES_HELD = 20_000_000  # of items to each other, by a thread
_BLOCK = 64  # items of which the highest score is looked for first
_DAYS_OF_STOCK = 7


@dataclass(frozen=True)
class Shop:
    """Items [I] in the order of their ids: `vectors` [I, D] of their text, of length 1 or 0; `brands` and `categories`
    as numbers, -1 where the catalogue names none; `log_prices`; `near` [I, N], nearest first, -1 where there are fewer;
    `appeal` on the first day, which turns to the `later` one by `drift`, radians a day; `bids`, 0 where nobody pays.
    `texts` [I] are placed in the `space`; `asked`: what real people searched for, of whatever shop."""

    item_ids: Sequence[str]
    texts: Sequence[str]
    space: Space
    asked: Sequence[str]
    vectors: Vectors
    brands: Ints
    categories: Ints
    log_prices: Floats
    near: Ints
    appeal: Floats
    later: Floats
    drift: float
    bids: Floats
    out_of_stock: float
    draws: Draws

    @classmethod
    def of(cls, items: pd.DataFrame, parameters: Parameters, seed: int, asked: Sequence[str] = ()) -> Shop:
        """The shop of a catalogue: item_id, title, brand, category, price; and of what people `asked` it for.

        Raises:
            DataError: it has fewer than two items: there is nothing to choose between.
        """
        if len(items) < 2:
            raise DataError(
                "The market has nothing to choose between.",
                why=f"The catalogue has {len(items)} item(s).",
                do="Ingest a catalogue of at least two.",
            )
        items, draws, own = items.sort_values("item_id", ignore_index=True), Draws(seed), parameters.catalogue
        texts = items[["title", "brand", "category"]].fillna("").agg(" ".join, axis=1).tolist()
        space = Space.of(texts, own.dimensions, draws)
        vectors, brands = space.placed(texts), _numbered(items["brand"])
        numbers = np.arange(len(items))
        prices = items["price"].astype(np.float64).fillna(own.price).to_numpy()
        return cls(
            tuple(items["item_id"]),
            texts,
            space,
            asked,
            vectors,
            brands,
            _numbered(items["category"].str.rsplit(" > ", n=1).str[-1]),
            np.log(np.maximum(prices, 0.01)),
            _nearest(vectors, own.near),
            own.appeal * draws.normal("appeal", numbers),
            own.appeal * draws.normal("later appeal", numbers),
            np.radians(own.drift),
            _bids(brands, numbers, parameters, draws),
            own.out_of_stock,
            draws,
        )

    @cached_property
    def counted(self) -> Floats:
        """The appeal [I] on the first day, as a shop finds it out by counting: not exactly."""
        return self.appeal + 0.5 * self.draws.normal("counted", np.arange(len(self.item_ids)))

    def appeal_on(self, days: Ints, items: Ints | slice = slice(None)) -> Floats:
        """Of `items` on `days` of the horizon, which broadcast."""
        if self.drift == 0:
            return self.appeal[items]
        angle = self.drift * days
        return np.asarray(np.cos(angle) * self.appeal[items] + np.sin(angle) * self.later[items])

    def counted_on(self, days: Ints, items: Ints | slice = slice(None)) -> Floats:
        """What a shop has counted by these days."""
        if self.drift == 0:
            return self.counted[items]
        return self.counted[items] + self.appeal_on(days, items) - self.appeal[items]

    def told_apart(self, days: Ints) -> Ints:
        """The days, where any is unlike another: without drift all are the first."""
        return days if self.drift else np.zeros_like(days)

    def in_stock(self, items: Ints, days: Ints) -> NDArray[np.bool_]:
        """Whether `items` can be bought on `days`, which broadcast."""
        return self.draws.uniform("stock", items, days // _DAYS_OF_STOCK) >= self.out_of_stock


def _numbered(names: pd.Series) -> Ints:
    return np.asarray(pd.factorize(names, sort=True)[0], dtype=np.int64)


def _nearest(vectors: Vectors, count: int) -> Ints:
    """Of each item the `count` nearest others; items without words are near nothing."""
    items, count = len(vectors), min(count, len(vectors) - 1)
    at_once, padded = max(1, _SCORES_HELD // items), -(-items // _BLOCK) * _BLOCK

    def found(start: int) -> Ints:
        part = np.arange(start, min(start + at_once, items))
        scores = np.full((len(part), padded), -np.inf, dtype=vectors.dtype)
        np.matmul(vectors[part], vectors.T, out=scores[:, :items])
        scores[np.arange(len(part)), part] = -np.inf
        among = _in_best_blocks(scores, count)
        scores = np.take_along_axis(scores, among, axis=1)
        best = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
        values = np.round(np.take_along_axis(scores, best, axis=1), 4)  # the last digits are the processor's
        near = np.take_along_axis(among, best, axis=1)
        order = np.lexsort((near, -values), axis=1)
        ordered = np.take_along_axis(near, order, axis=1)
        return np.where(np.take_along_axis(values, order, axis=1) > 0, ordered, -1).astype(np.int64)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy lets go of the interpreter where it works
        return np.concatenate(list(threads.map(found, range(0, items, at_once))))


def _in_best_blocks(scores: Vectors, count: int) -> Ints:
    """Of each row, places that the `count` best are among: each of them is in one of the `count` blocks of the highest
    maxima. To look for the maxima of blocks is a third of the work of parting whole rows."""
    tops = scores.reshape(len(scores), -1, _BLOCK).max(axis=2)
    kept = min(count, tops.shape[1])
    blocks = np.sort(np.argpartition(tops, tops.shape[1] - kept, axis=1)[:, -kept:], axis=1)
    return (blocks[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(len(scores), -1)


def _bids(brands: Ints, numbers: Ints, parameters: Parameters, draws: Draws) -> Floats:
    own = parameters.bids
    pays = (draws.uniform("advertiser", brands) < own.share) & (brands >= 0)
    return np.where(pays, own.median * np.exp(own.spread * draws.normal("bid", numbers)), 0.0)
