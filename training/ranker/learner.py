"""A listwise ranker: LightGBM's lambdarank over the features of candidates, with a calibrated probability and reasons.

LambdaMART (Burges 2010, MSR-TR-2010-82). What a feature adds to a score is how far its splits move the mean on the way
to the leaf (Saabas 2014, "Interpreting random forests"). SHAP values of trees (Lundberg et al. 2018, arXiv 1802.03888)
add up to the same and share it out more evenly along a way; they take sixty times as long, too long for the lists of
all users.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.core.errors import LeftOut
from training.core.files import write_json
from training.core.metrics import ndcg_at
from training.core.progress import Progress
from training.ranker.calibration import Calibration
from training.ranker.features import Table
from training.ranker.signals.base import Floats, Ints, Mask
from training.ranker.signals.popularity import Popularity

_TREES, _FACTS = "trees.txt", "ranker.json"
_OUR_OWN = ("rounds", "patience", "num_leaves")
_UNDECIDED = ("personal",)


@dataclass(frozen=True)
class LearnerConfig:
    """LightGBM's own names. `patience`: rounds without a better NDCG@10 on the questions that are held back.

    These also choose among the `num_leaves`: a large shop has more to tell than a small one. Scores and places of
    signals are monotone (`Table.directions`): without that a small shop's trees learn its noise. Of the user's own
    items the data decide: some shops sell the same again, others never. Whether they also decide of popularity the
    questions say, too: of two items that the other signals put alike, the one that everybody takes may be the likelier
    one, or the one that owes its place to that alone. What stands first is left only for what is better by more than a
    standard error (Breiman et al. 1984): few questions would choose by chance.
    """

    rounds: int = 1000
    patience: int = 50
    learning_rate: float = 0.05
    num_leaves: tuple[int, ...] = (31, 15, 7)
    min_data_in_leaf: int = 50
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.8
    lambdarank_truncation_level: int = 30


@dataclass(frozen=True)
class Labelled:
    """Candidates of questions whose answer is known: `questions` [pairs] in rising order, `taken` [pairs]."""

    table: Table
    questions: Ints
    taken: Mask

    def answerable(self) -> Labelled:
        """Without the questions whose answer is no candidate: nothing is learnt of them."""
        answered = np.zeros(int(self.questions.max(initial=-1)) + 1, dtype=bool)
        answered[self.questions[self.taken]] = True
        kept = answered[self.questions]
        if kept.all():
            return self  # a copy would be as large
        return Labelled(Table(self.table.names, self.table.values[kept]), self.questions[kept], self.taken[kept])

    @classmethod
    def joined(cls, parts: list[Labelled]) -> Labelled:
        """All of them, each with questions of its own. The list is empty after it: both together would be too large."""
        names, place, start = parts[0].table.names, 0, 0
        size = sum(len(part.questions) for part in parts)
        values, taken = np.empty((size, len(names)), dtype=np.float32), np.empty(size, dtype=bool)
        questions = np.empty(size, dtype=np.int64)
        while parts:
            part = parts.pop(0)
            own = slice(place, place + len(part.questions))
            values[own], taken[own], questions[own] = part.table.values, part.taken, part.questions + start
            place, start = own.stop, start + int(part.questions.max(initial=-1)) + 1
        return cls(Table(names, values), questions, taken)

    def data(self) -> lgb.Dataset:
        """As LightGBM takes it; what it has binned it does not keep."""
        _, sizes = np.unique(self.questions, return_counts=True)
        return lgb.Dataset(self.table.values, self.taken.astype(np.int8), group=sizes)


@dataclass(frozen=True)
class Ranker:
    """Trees over the features `names`, and what their scores are worth."""

    trees: lgb.Booster
    names: tuple[str, ...]
    calibration: Calibration

    @classmethod
    def fit(cls, learnt: Labelled, held_back: Labelled, config: LearnerConfig, seed: int) -> Ranker:
        """Learn from `learnt`; stop and calibrate on `held_back`.

        Raises:
            LeftOut: in one of the two no answer is among the candidates.
        """
        answered = learnt.answerable()
        if not len(answered.questions) or not held_back.taken.any():
            raise LeftOut("no signal names an item that was taken next", do="wait for more events")
        settings: dict[str, Any] = {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "bagging_freq": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
            **{name: value for name, value in vars(config).items() if name not in _OUR_OWN},
        }
        data, judged = answered.data(), held_back.answerable().data()

        def grown(leaves: int, undecided: Collection[str]) -> _Grown:
            own = {"num_leaves": leaves, "monotone_constraints": answered.table.directions(undecided)}
            halt = lgb.early_stopping(config.patience, verbose=False)
            with Progress(config.rounds, f"trees of {leaves} leaves, at most", "round") as progress:
                callbacks = [lambda _: progress.advance(), halt]
                trees = lgb.train({**settings, **own}, data, config.rounds, valid_sets=[judged], callbacks=callbacks)
            return _Grown(trees, leaves, ndcg_of(np.asarray(trees.predict(held_back.table.values)), held_back))

        best = grown(config.num_leaves[0], _UNDECIDED)
        for leaves in config.num_leaves[1:]:
            best = best.or_better(grown(leaves, _UNDECIDED))
        best = best.or_better(grown(best.leaves, (*_UNDECIDED, Popularity.name)))
        scores = np.asarray(best.trees.predict(held_back.table.values))
        return cls(best.trees, learnt.table.names, Calibration.of(scores, held_back.taken))

    def scores(self, table: Table) -> Floats:
        """A score for each pair, comparable within a question: [pairs]."""
        return np.asarray(self.trees.predict(self._own(table)), dtype=np.float32)

    def probabilities(self, scores: Floats) -> Floats:
        """That the item is what the user takes next: [pairs], in the order of the scores."""
        return self.calibration(scores)

    def reasons(self, table: Table) -> tuple[tuple[str, ...], Floats]:
        """What each group of features adds to the score of each pair: the groups, and [pairs, groups].

        They add up to the score less its mean over what was learnt from.
        """
        leaves = np.asarray(self.trees.predict(self._own(table), pred_leaf=True), dtype=np.int64)
        found = np.zeros((len(leaves), len(self.groups)), dtype=np.float32)
        for tree, added in enumerate(self._added):
            found += added[leaves[:, tree]]
        return self.groups, found

    @property
    def groups(self) -> tuple[str, ...]:
        """Of features."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.names))

    @cached_property
    def _added(self) -> list[Floats]:
        """Of each tree, what the way to a leaf adds by group: [leaves, groups]."""
        of = [self.groups.index(name.partition(".")[0]) for name in self.names]
        trees = self.trees.dump_model()["tree_info"]
        return [_along_the_ways(tree["tree_structure"], tree["num_leaves"], of, len(self.groups)) for tree in trees]

    def _own(self, table: Table) -> Floats:
        """The columns that it has learnt; what the shop no longer tells is unknown, what is new is read over."""
        if table.names == self.names:
            return table.values
        place = {name: column for column, name in enumerate(table.names)}
        found = np.full((len(table.values), len(self.names)), np.nan, dtype=np.float32)
        for column, name in enumerate(self.names):
            if name in place:
                found[:, column] = table.values[:, place[name]]
        return found

    def save(self, folder: Path) -> None:
        """Write what `load` reads: text and JSON, no pickle."""
        self.trees.save_model(str(folder / _TREES))
        write_json(folder / _FACTS, {"features": self.names, **self.calibration.facts()})

    @staticmethod
    def there_is_one(folder: Path) -> bool:
        """Whether one was saved there."""
        return (folder / _FACTS).is_file()

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Read it."""
        facts = json.loads((folder / _FACTS).read_text())
        trees = lgb.Booster(model_file=str(folder / _TREES))
        return cls(trees, tuple(facts["features"]), Calibration.of_facts(facts))


class _Grown(NamedTuple):
    """Trees of so many leaves, and the NDCG@10 that they have on each question that is held back."""

    trees: lgb.Booster
    leaves: int
    ndcg: NDArray[np.float64]

    def or_better(self, other: _Grown) -> _Grown:
        """The other where it is better by more than a standard error of the difference, question by question."""
        gain = other.ndcg - self.ndcg
        return other if gain.mean() > gain.std() / np.sqrt(len(gain)) else self


def ndcg_of(scores: NDArray[np.floating], judged: Labelled) -> NDArray[np.float64]:
    """NDCG@10 of each question of which one candidate was taken: [questions]."""
    order = np.lexsort((-scores, judged.questions))
    place = np.arange(len(order)) - np.searchsorted(judged.questions, judged.questions)
    return ndcg_at((place[judged.taken[order]] + 1).astype(np.float64), 10)


def _along_the_ways(root: Mapping[str, Any], leaves: int, of: Sequence[int], groups: int) -> Floats:
    """By group, how far each split on the way to a leaf moves the mean of what is below: [leaves, groups]."""
    found = np.zeros((leaves, groups), dtype=np.float32)

    def visit(node: Mapping[str, Any]) -> tuple[float, float, list[int]]:
        """Its mean, how many pairs it was learnt of, and its leaves."""
        if "split_feature" not in node:
            return node["leaf_value"], node.get("leaf_count", 0), [node.get("leaf_index", 0)]
        parts = [visit(node["left_child"]), visit(node["right_child"])]
        count = sum(part[1] for part in parts)
        mean = sum(part[0] * part[1] for part in parts) / count
        for value, _, below in parts:
            found[below, of[node["split_feature"]]] += value - mean
        return mean, count, [*parts[0][2], *parts[1][2]]

    visit(root)
    return found
