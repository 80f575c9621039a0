"""The generator among the ranker's signals: its beams join the candidates, and speak for them.

What is served is one list, in the order of a mixture of ranker and generator (`log_linear`). The folder of a fused
recommender is the ranker's own (signals, trees, calibration) with `mixture.json` and the packaged generator in
`generator/`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from training.core.errors import DataError
from training.core.files import new_folder
from training.generative_rec.log_linear import LogLinear
from training.next_item.recommender import ListRequest, Recommender
from training.ranker.bundle import Bundle
from training.ranker.serve import RankerRow
from training.ranker.serve import package as package_ranker
from training.ranker.signals.base import Questions, Signal, Table

GENERATOR = "generator"
"""The name of the signal, and of the folder of what answers for it."""


class Beams(Signal):
    """The first `beams` items of a generator, each with its probability exp(log-prob); of no other item it says
    anything."""

    name, joins = GENERATOR, True

    def __init__(self, generator: Recommender, bundle: Bundle, beams: int) -> None:
        self._generator, self._items, self._beams = generator, bundle.catalogue, beams
        self._row = {item: row for row, item in enumerate(bundle.catalogue)}

    @property
    def catalogue(self) -> int:
        """See `Signal.catalogue`."""
        return len(self._items)

    def said(self, asked: Questions) -> Table:
        """See `Signal.said`. A chance that float32 rounds to nothing is its smallest number above 0; an item that the
        bundle does not have is read over."""
        users = asked.users or [None] * len(asked)
        requests = [
            ListRequest([self._items[row] for row in history.tolist()], user, frozenset())
            for history, user in zip(asked.histories, users, strict=True)
        ]
        lists = self._generator.answer(requests, self._beams, None) if requests else []
        known = [[(self._row[item], score) for item, score in line if item in self._row] for line in lists]
        starts = np.cumsum([0, *map(len, known)])
        items = np.array([item for line in known for item, _ in line], dtype=np.int64)
        chances = np.exp(np.array([score for line in known for _, score in line], dtype=np.float64))
        values = np.maximum(chances, np.finfo(np.float32).tiny).astype(np.float32)
        return Table(sp.csr_array((values, items, starts), shape=(len(asked), self.catalogue)))


def with_generator(bundle: Bundle, generator: Recommender, beams: int) -> Bundle:
    """The signals of the bundle, and the generator's beams as the last of them."""
    signals = {**bundle.signals, GENERATOR: Beams(generator, bundle, beams)}
    return replace(bundle, fitted=replace(bundle.fitted, signals=signals))


def package(bundle: Bundle, mixture: LogLinear, generator: Path, folder: Path) -> None:
    """Make `folder` from the ranker, the mixture and the packaged generator; whole or not at all."""
    with new_folder(folder) as scratch:
        package_ranker(bundle, scratch)
        mixture.save(scratch)
        shutil.copytree(generator, scratch / GENERATOR)


def fused_row(folder: Path, generator: Recommender, beams: int) -> RankerRow:
    """What answers for what `package` wrote; DataError where it holds no trees.

    A folder of before there was a mixture has trees that were learnt with the generator among their features.
    """
    bundle = Bundle.load(folder)
    if bundle.ranker is None:
        raise DataError("the fused recommender holds no ranker", where=str(folder), do="run the stage `fusion` again")
    mixed = LogLinear.load(folder, bundle.ranker) if LogLinear.there_is_one(folder) else bundle.ranker
    return RankerRow(with_generator(bundle, generator, beams), mixed)
