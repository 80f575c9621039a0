"""The generator among the ranker's signals: its beams join the candidates, and their chance is one more feature.

What is served is one list: the ranker's, over all signals and the generator. The folder of a fused recommender is the
ranker's own (signals, trees, calibration) with the packaged generator in `generator/`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.core.errors import DataError
from training.core.files import new_folder
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.ranker.bundle import Bundle
from training.ranker.serve import RankerRow
from training.ranker.serve import package as package_ranker
from training.ranker.signals.base import Floats, Mask, Pairs, Questions, Signal

GENERATOR = "generator"
"""The name of the signal, and of the folder of what answers for it."""


class Beams(Signal):
    """The first `beams` items of a generator, each with its probability exp(log-prob); of no other item it says
    anything.

    Decoding is what it costs, so the answers to the questions that were asked last are kept.
    """

    def __init__(self, generator: Recommender, bundle: Bundle, beams: int) -> None:
        self._generator, self._catalogue, self._beams = generator, bundle.catalogue, beams
        self._row = {item: row for row, item in enumerate(bundle.catalogue)}
        self._kept: tuple[Questions, tuple[Pairs, Floats]] | None = None

    def top(self, asked: Questions, n: int, allowed: Mask | None = None) -> tuple[Pairs, Floats]:
        """See `Signal.top`; no beam goes to an item that is not allowed."""
        pairs, chances = self._decoded(asked, allowed)
        starts = np.searchsorted(pairs.questions, np.arange(len(asked) + 1))
        place = np.arange(len(pairs)) - starts[pairs.questions]
        kept = place < n
        return Pairs(pairs.questions[kept], pairs.items[kept]), chances[kept]

    def scores(self, asked: Questions, pairs: Pairs) -> Floats:
        """See `Signal.scores`."""
        known, chances = self._kept[1] if self._kept and self._kept[0] is asked else self._decoded(asked, None)
        size = len(self._catalogue)
        keys, order = known.questions * size + known.items, np.argsort(known.questions * size + known.items)
        wanted = pairs.questions * size + pairs.items
        place = np.searchsorted(keys[order], wanted)
        found = np.zeros(len(pairs), dtype=np.float32)
        there = np.append(keys[order], -1)[place] == wanted
        found[there] = chances[order][place[there]]
        return found

    def _decoded(self, asked: Questions, allowed: Mask | None) -> tuple[Pairs, Floats]:
        names, users = self._catalogue, asked.users or [None] * len(asked)
        within = None if allowed is None else frozenset(names[row] for row in np.flatnonzero(allowed).tolist())
        requests = [
            ListRequest([names[row] for row in history.tolist()], user, frozenset())
            for history, user in zip(asked.histories, users, strict=True)
        ]
        found = self._pairs(self._generator.answer(requests, self._beams, within) if requests else [])
        self._kept = asked, found
        return found

    def _pairs(self, lists: list[Ranking]) -> tuple[Pairs, Floats]:
        """Those of the bundle's catalogue, best first; a chance that float32 rounds to nothing is its smallest one."""
        known = [[(self._row[item], score) for item, score in line if item in self._row] for line in lists]
        questions = np.repeat(np.arange(len(known)), [len(line) for line in known])
        items = np.array([item for line in known for item, _ in line], dtype=np.int64)
        scores = np.array([score for line in known for _, score in line], dtype=np.float64)
        return Pairs(questions, items), np.maximum(np.exp(scores), np.finfo(np.float32).tiny).astype(np.float32)


def with_generator(bundle: Bundle, generator: Recommender, beams: int) -> Bundle:
    """The signals of the bundle, and the generator's beams as the last of them."""
    signals = {**bundle.signals, GENERATOR: Beams(generator, bundle, beams)}
    return replace(bundle, fitted=replace(bundle.fitted, signals=signals))


def package(bundle: Bundle, generator: Path, folder: Path) -> None:
    """Make `folder` from the ranker's signals with the fused trees, and the packaged generator; whole or not at all."""
    with new_folder(folder) as scratch:
        package_ranker(bundle, scratch)
        shutil.copytree(generator, scratch / GENERATOR)


def fused_row(folder: Path, generator: Recommender, beams: int) -> RankerRow:
    """What answers for what `package` wrote; DataError where it holds no trees."""
    bundle = Bundle.load(folder)
    if bundle.ranker is None:
        raise DataError("the fused recommender holds no ranker", where=str(folder), do="run the stage `fusion` again")
    return RankerRow(with_generator(bundle, generator, beams), bundle.ranker)
