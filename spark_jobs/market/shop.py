"""The shop of the market: a real catalogue in numbers, and what is assumed of it: appeal, stock, bids."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from infra.errors import DataError
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import Parameters

_SCORES_HELD = 20_000_000  # of items to each other, by a thread
_DAYS_OF_STOCK = 7


@dataclass(frozen=True)
class Shop:
    """Items [I] in the order of their ids: `vectors` [I, D] of their text, of length 1 or 0; `brands` and `categories`
    as numbers, -1 where the catalogue names none; `log_prices`; `near` [I, N], nearest first, -1 where there are fewer;
    `appeal` on the first day, which turns to the `later` one by `drift`, radians a day; `bids`, 0 where nobody pays."""

    item_ids: Sequence[str]
    vectors: NDArray[np.float32]
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
    def of(cls, items: pd.DataFrame, parameters: Parameters, seed: int) -> Shop:
        """The shop of a catalogue: item_id, title, brand, category, price and further texts.

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
        vectors, brands = _vectors(items, own.dimensions, draws), _numbered(items["brand"])
        numbers = np.arange(len(items))
        prices = items["price"].astype(np.float64).fillna(own.price).to_numpy()
        return cls(
            tuple(items["item_id"]),
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


def _vectors(items: pd.DataFrame, dimensions: int, draws: Draws) -> NDArray[np.float32]:
    """TF-IDF through a random projection (Johnson and Lindenstrauss 1984), each word with a direction of its own.

    Not decomposed: a decomposition differs in its last digits with the threads that computed it.
    """
    texts = items[["title", "brand", "category"]].fillna("").agg(" ".join, axis=1)
    reader = TfidfVectorizer(sublinear_tf=True)
    try:
        words = reader.fit_transform(texts)
    except ValueError:  # no item has a word
        return np.zeros((len(items), dimensions), dtype=np.float32)
    keys = np.array([zlib.crc32(word.encode()) for word in reader.get_feature_names_out()])
    found = words @ draws.normal("direction", keys[:, None], np.arange(dimensions)[None, :])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(lengths > 0, found / np.where(lengths > 0, lengths, 1.0), 0.0).astype(np.float32)


def _numbered(names: pd.Series) -> Ints:
    return np.asarray(pd.factorize(names, sort=True)[0], dtype=np.int64)


def _nearest(vectors: NDArray[np.float32], count: int) -> Ints:
    """Of each item the `count` nearest others; items without words are near nothing."""
    count, at_once = min(count, len(vectors) - 1), max(1, _SCORES_HELD // len(vectors))

    def found(start: int) -> Ints:
        part = np.arange(start, min(start + at_once, len(vectors)))
        scores = vectors[part] @ vectors.T
        scores[np.arange(len(part)), part] = -np.inf
        best = np.argpartition(scores, len(vectors) - count, axis=1)[:, -count:]
        values = np.round(np.take_along_axis(scores, best, axis=1), 4)  # the last digits are the processor's
        order = np.lexsort((best, -values), axis=1)
        ordered = np.take_along_axis(best, order, axis=1)
        return np.where(np.take_along_axis(values, order, axis=1) > 0, ordered, -1).astype(np.int64)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy lets go of the interpreter where it works
        return np.concatenate(list(threads.map(found, range(0, len(vectors), at_once))))


def _bids(brands: Ints, numbers: Ints, parameters: Parameters, draws: Draws) -> Floats:
    own = parameters.bids
    pays = (draws.uniform("advertiser", brands) < own.share) & (brands >= 0)
    return np.where(pays, own.median * np.exp(own.spread * draws.normal("bid", numbers)), 0.0)
