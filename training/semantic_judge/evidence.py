"""What can be counted of a user state and an item: in numbers for a judge, in words for a prompt.

Nearness is the cosine of two texts' vectors. What is near, the catalogue itself says (`Bands`): of two texts drawn at
random one pair in ten is near, one in a hundred very near, one in a thousand nearly the same, whatever the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from training.core.files import write_json
from training.semantic_judge.evidence_words import Near, in_full, terse
from training.semantic_judge.examples import Cases, Catalogue, Floats, Ints, Item

Encode = Callable[[Sequence[str]], Floats]
"""Texts to vectors of length 1: [texts, width]."""
LIKED, DISLIKED = 5.0, 2.0
"""The stars from which on an item was liked, and those up to which it was disliked, as the samples' `feedback`."""
NAMES = (
    "near.liked",
    "near.disliked",
    "near.any",
    "near.last",
    "near.mean",
    "brand.share",
    "brand.rating",
    "category.share",
    "category.rating",
    "price.beside",
    "item.rating",
    "item.events",
    "taken.times",
    "taken.ago",
    "history.length",
    "history.rating",
    "context.near",
    "context.words",
)
"""The columns of `Evidence.numbers`. NaN is what nobody knows."""
PLACE = {name: column for column, name in enumerate(NAMES)}
_EVENTS_AT_ONCE = 1 << 17  # two vectors of 384 numbers for each: 400 MiB
_DRAWN = 100_000
_NEVER = 2.0  # no cosine is as large, and JSON can hold it
_SHARES = (0.9, 0.99, 0.999)
_CATALOGUE, _VECTORS, _BANDS = "items.parquet", "vectors.safetensors", "bands.json"
_ITEMS = pa.schema(
    [*((name, pa.string()) for name in ("item_id", "title", "brand", "category", "text")), ("price", pa.float64())]
)


def column(numbers: Floats, name: str) -> Floats:
    """One column of `Evidence.numbers`: [n]."""
    return numbers[:, PLACE[name]]


@dataclass(frozen=True)
class Bands:
    """From which cosine on two texts are near, very near, nearly the same."""

    near: float
    very: float
    same: float

    @classmethod
    def of(cls, left: Floats, right: Floats, seed: int) -> Self:
        """Of the vectors of texts [texts, width] of two kinds, which may be one; those of empty texts tell nothing.

        Where no two texts can be compared nothing is near.
        """
        rng, told = np.random.default_rng(seed), [_told(vectors) for vectors in (left, right)]
        if not all(len(rows) for rows in told):
            return cls(*[_NEVER] * 3)
        first, second = (rng.choice(rows, _DRAWN) for rows in told)
        if left is right:
            first, second = first[first != second], second[first != second]
        if not len(first):
            return cls(*[_NEVER] * 3)
        cosines = np.concatenate([_cosines(left, a, right, b) for a, b in _parts(first, second)])
        return cls(*np.quantile(cosines, _SHARES).tolist())

    def words(self, cosine: float) -> str:
        """How near that is."""
        if np.isnan(cosine):
            return "not known"
        names = ("far", "near", "very near", "nearly the same")
        return names[int(np.searchsorted([self.near, self.very, self.same], cosine, side="right"))]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence on the items of a catalogue: `vectors` [items, width] of their texts, 0 where an item has none.

    `encode` makes vectors of what people look for. `bands` are of items beside items, `asked` of items beside that.
    """

    catalogue: Catalogue
    vectors: Floats
    encode: Encode
    bands: Bands
    asked: Bands

    @classmethod
    def of(cls, catalogue: Catalogue, contexts: Sequence[str | None], encode: Encode, seed: int) -> Self:
        """Of the items' texts and what users look for."""
        vectors = _rounded(encode([item.text for item in catalogue.items]))
        vectors[[not item.text for item in catalogue.items]] = 0.0
        sought = list(dict.fromkeys(context for context in contexts if context))
        asked = encode(sought) if sought else np.zeros((0, vectors.shape[1]), dtype=np.float32)
        return cls(catalogue, vectors, encode, Bands.of(vectors, vectors, seed), Bands.of(asked, vectors, seed))

    def over(self, items: Sequence[Item]) -> Self:
        """On the catalogue of another day: `items`, and behind them those that are not among them any more, as
        histories may hold them. A text that is known keeps its vector; the bands stay."""
        numbers, there = self.catalogue.numbers, {item.item_id for item in items}
        catalogue = Catalogue([*items, *(item for item in self.catalogue.items if item.item_id not in there)])
        vectors = np.zeros((len(catalogue), self.vectors.shape[1]), dtype=np.float32)
        fresh = list[int]()
        for place, item in enumerate(catalogue.items):
            before = numbers.get(item.item_id)
            if before is not None and self.catalogue.items[before].text == item.text:
                vectors[place] = self.vectors[before]
            elif item.text:
                fresh.append(place)
        if fresh:
            vectors[fresh] = _rounded(self.encode([catalogue.items[place].text for place in fresh]))
        return replace(self, catalogue=catalogue, vectors=vectors)

    def numbers(self, cases: Cases) -> Floats:
        """The evidence of each case, in the order of `NAMES`: [n, len(NAMES)].

        The cases are of this catalogue. Histories are laid out some at a time, so memory does not grow with n.
        """
        found = np.full((len(cases), len(NAMES)), np.nan, dtype=np.float32)
        lengths = np.diff(cases.states.starts)[cases.state]
        for rows in _runs(lengths):
            self._of_history(found[rows], cases.chosen(np.arange(rows.start, rows.stop)))
        found[:, PLACE["item.rating"]], found[:, PLACE["item.events"]] = cases.mean_rating, cases.events
        found[:, PLACE["history.length"]] = lengths
        self._of_context(found, cases)
        return found

    def words(self, numbers: Floats) -> list[str]:
        """The evidence [n, len(NAMES)] as a line each, for a prompt that has the `LEGEND`; see `evidence_words`."""
        return self._lines(numbers, terse)

    def sentences(self, numbers: Floats) -> list[str]:
        """The same in full, for people and for a teacher."""
        return self._lines(numbers, in_full)

    def _lines(self, numbers: Floats, put: Callable[[Mapping[str, float], Near, Near], str]) -> list[str]:
        rows = (dict(zip(NAMES, row, strict=True)) for row in numbers.tolist())
        return [put(row, self.bands.words, self.asked.words) for row in rows]

    def save(self, folder: Path) -> None:
        """Write what `load` reads: the catalogue, its vectors in half precision, and the bands."""
        pq.write_table(pa.Table.from_pylist([vars(item) for item in self.catalogue.items], _ITEMS), folder / _CATALOGUE)
        save_file({"vectors": self.vectors.astype(np.float16)}, folder / _VECTORS)
        write_json(folder / _BANDS, {"bands": vars(self.bands), "asked": vars(self.asked)})

    @classmethod
    def load(cls, folder: Path, encode: Encode) -> Self:
        """Read it; `encode` is the encoder that the vectors are of."""
        catalogue = Catalogue([Item(**row) for row in pq.read_table(folder / _CATALOGUE).to_pylist()])
        vectors = load_file(folder / _VECTORS)["vectors"].astype(np.float32)
        bands = {name: Bands(**found) for name, found in json.loads((folder / _BANDS).read_text()).items()}
        return cls(catalogue, vectors, encode, bands["bands"], bands["asked"])

    def _of_history(self, found: Floats, cases: Cases) -> None:
        """Fill in what comes of the events of the histories: columns of `found` [cases, len(NAMES)]."""
        events, catalogue = _Events.of(cases), self.catalogue
        item = cases.item[events.case]
        near = _cosines(self.vectors, events.item, self.vectors, item)
        near[~(self.vectors[events.item].any(axis=1) & self.vectors[item].any(axis=1))] = np.nan
        # An item that was taken and not rated has not displeased.
        liked = (events.rating >= LIKED) | np.isnan(events.rating)
        columns = {
            "near.liked": events.largest(np.where(liked, near, np.nan)),
            "near.disliked": events.largest(np.where(events.rating <= DISLIKED, near, np.nan)),
            "near.any": events.largest(near),
            "near.last": events.largest(np.where(events.ago == 1, near, np.nan)),
            "near.mean": events.mean(near),
            "history.rating": events.mean(events.rating),
        }
        for name, numbers in (("brand", catalogue.brands), ("category", catalogue.categories)):
            known = (numbers[events.item] >= 0) & (numbers[item] >= 0)
            same = np.where(known, (numbers[events.item] == numbers[item]).astype(np.float32), np.nan)
            columns[f"{name}.share"] = events.mean(same)
            columns[f"{name}.rating"] = events.mean(np.where(same == 1.0, events.rating, np.nan))
        columns["price.beside"] = catalogue.log_prices[cases.item] - events.mean(catalogue.log_prices[events.item])
        again = events.item == item
        columns["taken.times"] = np.bincount(events.case[again], minlength=len(cases)).astype(np.float32)
        columns["taken.ago"] = -events.largest(np.where(again, -events.ago, np.nan))
        for name, column in columns.items():
            found[:, PLACE[name]] = column

    def _of_context(self, found: Floats, cases: Cases) -> None:
        contexts = [cases.states.contexts[state] for state in cases.state.tolist()]
        sought = list(dict.fromkeys(context for context in contexts if context))
        if not sought:
            return
        number = {context: place for place, context in enumerate(sought)}
        vectors, rows = self.encode(sought), np.flatnonzero([bool(context) for context in contexts])
        place = np.array([number[contexts[row] or ""] for row in rows.tolist()], dtype=np.int64)
        for part, own in _parts(rows, place):
            near = _cosines(vectors, own, self.vectors, cases.item[part])
            near[~self.vectors[cases.item[part]].any(axis=1)] = np.nan
            found[part, PLACE["context.near"]] = near
        wanted = [frozenset(context.lower().split()) for context in sought]
        texts = {
            item: frozenset(self.catalogue.items[item].text.lower().split()) for item in set(cases.item[rows].tolist())
        }
        shares = [
            len(wanted[own] & texts[item]) / max(len(wanted[own]), 1)
            for own, item in zip(place.tolist(), cases.item[rows].tolist(), strict=True)
        ]
        found[rows, PLACE["context.words"]] = shares


@dataclass(frozen=True, eq=False)
class _Events:
    """The events of the histories of some cases, one after the other: of which `case`, `item`, `rating`, how long `ago`
    (1: the last)."""

    cases: int
    case: Ints
    item: Ints
    rating: Floats
    ago: Floats

    @classmethod
    def of(cls, cases: Cases) -> Self:
        starts, ends = cases.states.starts[cases.state], cases.states.starts[cases.state + 1]
        lengths = ends - starts
        case = np.repeat(np.arange(len(cases)), lengths)
        place = np.arange(len(case)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[case]
        ago = (ends[case] - place).astype(np.float32)
        return cls(len(cases), case, cases.states.history[place], cases.states.ratings[place], ago)

    def largest(self, values: NDArray[np.floating]) -> Floats:
        """The largest of the values [events] that are known, of each case; NaN where there is none: [cases]."""
        known, found = ~np.isnan(values), np.full(self.cases, -np.inf, dtype=np.float32)
        np.maximum.at(found, self.case[known], values[known].astype(np.float32))
        return np.where(np.isinf(found), np.float32(np.nan), found)

    def mean(self, values: NDArray[np.floating]) -> Floats:
        """The mean of those that are known, of each case; NaN where there is none: [cases]."""
        known = ~np.isnan(values)
        count = np.bincount(self.case[known], minlength=self.cases)
        total = np.bincount(self.case[known], weights=values[known], minlength=self.cases)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _rounded(vectors: Floats) -> Floats:
    """As they are saved, so that what is counted now is what a saved judge counts."""
    return vectors.astype(np.float16).astype(np.float32)


def _cosines(left: Floats, rows: Ints, right: Floats, others: Ints) -> Floats:
    """Of the vectors at these places, one by one: [rows]."""
    return np.asarray(np.einsum("nw,nw->n", left[rows], right[others]), dtype=np.float32)


def _told(vectors: Floats) -> Ints:
    return np.flatnonzero(vectors.any(axis=1))


def _parts(*columns: Ints) -> list[tuple[Ints, ...]]:
    """The columns in pieces whose vectors fit into memory."""
    starts = range(0, len(columns[0]), _EVENTS_AT_ONCE)
    return [tuple(column[start : start + _EVENTS_AT_ONCE] for column in columns) for start in starts]


def _runs(lengths: Ints) -> list[slice]:
    """Rows in runs whose lengths add up to what is laid out at once, or of one row."""
    runs, start, room = list[slice](), 0, 0
    for row, length in enumerate(lengths.tolist()):
        if row > start and room + length > _EVENTS_AT_ONCE:
            runs.append(slice(start, row))
            start, room = row, 0
        room += length + 1
    return [*runs, slice(start, len(lengths))] if len(lengths) else []
