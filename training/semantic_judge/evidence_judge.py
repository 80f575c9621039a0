"""A judge without a language model: the level of each aspect from the evidence, linear or boosted, calibrated.

Both learn P(level | evidence) from labelled training examples, a multinomial logistic regression and LightGBM's trees;
the one with the lower log loss on validation labels is kept, aspect by aspect, and its logits are divided by the
temperature that is best there (Guo et al. 2017, arXiv 1706.04599). What is known of nobody is itself evidence: the
linear one has a column for each number that may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from training.core.errors import DataError, LeftOut
from training.core.files import write_json
from training.semantic_judge.aspects import CONTEXT, UNKNOWN, Aspect, Levels, aspects, expected
from training.semantic_judge.evidence import NAMES, Evidence
from training.semantic_judge.examples import Cases, Floats, Ints

_FACTS = "judge.json"


@dataclass(frozen=True)
class EvidenceJudgeConfig:
    """`regularisation`: C of scikit-learn's logistic regression, chosen on validation. `rounds` and the rest are
    LightGBM's names; it stops after `patience` rounds without a lower log loss on validation. `least`: labels of an
    aspect, of training and of validation, below which there is no judge."""

    regularisation: tuple[float, ...] = (0.01, 0.1, 1.0)
    rounds: int = 200
    patience: int = 15
    learning_rate: float = 0.1
    num_leaves: int = 15
    min_data_in_leaf: int = 50
    least: int = 50


class Model(Protocol):
    """One aspect's levels from evidence."""

    def logits(self, numbers: Floats) -> NDArray[np.float64]:
        """Up to a constant, the logarithm of how likely each level is: [n, levels]."""

    def save(self, path: Path) -> None:
        """Write what `load` of its kind reads; the file's suffix says the kind."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Multinomial logistic regression over standardised numbers, and whether each is missing: `weights`
    [levels, 2 * columns], `intercept` [levels], `mean` and `scale` [columns]."""

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    suffix = ".safetensors"

    @classmethod
    def fit(cls, numbers: Floats, levels: NDArray[np.int8], size: int, strength: float, seed: int) -> Self:
        """Of labelled evidence [n, columns] and levels [n]; levels that do not occur stay nearly impossible."""
        from sklearn.linear_model import LogisticRegression

        mean, scale = standard(numbers)
        asked = LogisticRegression(C=strength, max_iter=300, tol=1e-3, random_state=seed)
        with one_thread():
            fitted = asked.fit(_wide(numbers, mean, scale), levels)
        weights, intercept = np.zeros((size, 2 * len(mean))), np.full(size, -_IMPOSSIBLE)
        # Two classes are one row in scikit-learn: the second one's log odds.
        binary = len(fitted.classes_) == 2
        rows = np.concatenate([np.zeros_like(fitted.coef_), fitted.coef_]) if binary else fitted.coef_
        starts = np.concatenate([[0.0], fitted.intercept_]) if binary else fitted.intercept_
        weights[fitted.classes_], intercept[fitted.classes_] = rows, starts
        return cls(weights, intercept, mean, scale)

    def logits(self, numbers: Floats) -> NDArray[np.float64]:
        """See `Model.logits`."""
        return np.asarray(_wide(numbers, self.mean, self.scale) @ self.weights.T + self.intercept)

    def save(self, path: Path) -> None:
        """See `Model.save`."""
        save_file({name: np.ascontiguousarray(value) for name, value in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it."""
        return cls(**load_file(path))


_IMPOSSIBLE = 20.0


@dataclass(frozen=True, eq=False)
class Boosted:
    """LightGBM's multiclass trees."""

    trees: lgb.Booster
    suffix = ".txt"

    @classmethod
    def fit(cls, learnt: _Labelled, valid: _Labelled, size: int, config: EvidenceJudgeConfig, seed: int) -> Self:
        """Learn, and stop where validation says so."""
        settings: dict[str, Any] = {
            "objective": "multiclass",
            "num_class": size,
            "learning_rate": config.learning_rate,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": config.min_data_in_leaf,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        judged = lgb.Dataset(valid.numbers, valid.levels)
        halt = [lgb.early_stopping(config.patience, verbose=False)]
        data = lgb.Dataset(learnt.numbers, learnt.levels)
        return cls(lgb.train(settings, data, config.rounds, valid_sets=[judged], callbacks=halt))

    def logits(self, numbers: Floats) -> NDArray[np.float64]:
        """See `Model.logits`."""
        return np.asarray(self.trees.predict(numbers, raw_score=True), dtype=np.float64)

    def save(self, path: Path) -> None:
        """See `Model.save`."""
        self.trees.save_model(str(path))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it."""
        return cls(lgb.Booster(model_file=str(path)))


@dataclass(frozen=True, eq=False)
class _Labelled:
    numbers: Floats
    levels: NDArray[np.int8]


@dataclass(frozen=True)
class Chosen:
    """What was chosen for an aspect: `linear` or `boosted`, the log loss of both on validation, before the temperature
    that the logits of the chosen one are divided by."""

    kind: str
    linear: float
    boosted: float
    temperature: float


@dataclass(frozen=True, eq=False)
class EvidenceJudge:
    """A `Scorer`: one model for each aspect over `evidence`."""

    evidence: Evidence
    aspects: Sequence[Aspect]
    models: Sequence[Model]
    chosen: Sequence[Chosen]

    @classmethod
    def fit(
        cls,
        evidence: Evidence,
        scored: Sequence[Aspect],
        numbers: Floats,
        levels: Levels,
        parts: tuple[Ints, Ints],
        config: EvidenceJudgeConfig,
        seed: int,
    ) -> Self:
        """Learn each aspect from the labelled ones of the training and the validation rows, which are `parts`.

        Args:
            numbers: [n, columns] of `Evidence.numbers`
            levels: [n, K], `UNKNOWN` where there is no label
        Raises:
            LeftOut: an aspect has too few labels, or only one level, in one of the two parts
        """
        models, chosen = list[Model](), list[Chosen]()
        for k, aspect in enumerate(scored):
            learnt, valid = (_labelled(numbers, levels[:, k], rows) for rows in parts)
            for name, part in (("training", learnt), ("validation", valid)):
                _refuse_few(part, f"{aspect.name}, {name} examples", config.least)
            model, choice = _fitted(learnt, valid, len(aspect.values), config, seed)
            models.append(model)
            chosen.append(choice)
        return cls(evidence, scored, models, chosen)

    def chances(self, cases: Cases) -> list[Floats]:
        """See `Scorer.chances`."""
        return self.chances_of(self.evidence.numbers(cases))

    def chances_of(self, numbers: Floats) -> list[Floats]:
        """The same of evidence that is there already: [n, columns] to K times [n, levels]."""
        pairs = zip(self.models, self.chosen, strict=True)
        return [softmax(model.logits(numbers) / choice.temperature).astype(np.float32) for model, choice in pairs]

    def over(self, evidence: Evidence) -> Self:
        """See `Scorer.over`."""
        return replace(self, evidence=evidence)

    def save(self, folder: Path) -> None:
        """Write what `load` reads: tensors, LightGBM's text and JSON. The evidence is saved by itself."""
        for aspect, model, choice in zip(self.aspects, self.models, self.chosen, strict=True):
            model.save(folder / f"{aspect.name}{_KINDS[choice.kind].suffix}")
        told = {one.name: asdict(choice) for one, choice in zip(self.aspects, self.chosen, strict=True)}
        write_json(folder / _FACTS, {"evidence": NAMES, "aspects": told})

    @classmethod
    def load(cls, folder: Path, evidence: Evidence) -> Self:
        """Read it. Raises DataError for a judge of other evidence than this code counts."""
        facts = json.loads((folder / _FACTS).read_text())
        if tuple(facts["evidence"]) != NAMES:
            raise DataError(
                "the judge reads other evidence than is counted now", where=str(folder), do="train it again"
            )
        scored = aspects(CONTEXT.name in facts["aspects"])
        chosen = [Chosen(**facts["aspects"][one.name]) for one in scored]
        models = [
            _KINDS[choice.kind].load(folder / f"{one.name}{_KINDS[choice.kind].suffix}")
            for one, choice in zip(scored, chosen, strict=True)
        ]
        return cls(evidence, scored, models, chosen)


def crossed(
    evidence: Evidence,
    scored: Sequence[Aspect],
    numbers: Floats,
    levels: Levels,
    parts: tuple[Ints, Ints],
    users: Ints,
    config: EvidenceJudgeConfig,
    seed: int,
) -> Floats:
    """What each example is worth by aspect, as a judge says that has learnt of half of the `users` [n] alone, and not
    of the example's: [n, K]. As `EvidenceJudge.fit` otherwise.

    A judge orders the pairs that it has learnt of better than others, and one aspect more so than another: whoever
    weighs the aspects by its own pairs learns what it knows by heart (cross-fitting, Chernozhukov et al. 2018).
    """
    second = (np.random.default_rng(seed).random(int(users.max()) + 1) < 0.5)[users]
    found, (learnt, valid) = np.empty((len(numbers), len(scored)), dtype=np.float32), parts
    for half in (False, True):
        own, others = second == half, learnt[second[learnt] != half]
        judge = EvidenceJudge.fit(evidence, scored, numbers, levels, (others, valid), config, seed)
        found[own] = expected(judge.chances_of(numbers[own]), scored)
    return found


def one_thread() -> AbstractContextManager[object]:
    """For products of few columns: where the machine is busy, threads of BLAS wait for each other by spinning, which
    has cost seventy times as much as the work."""
    limited: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limited


_KINDS: Mapping[str, type[Linear] | type[Boosted]] = {"linear": Linear, "boosted": Boosted}


def _fitted(
    learnt: _Labelled, valid: _Labelled, size: int, config: EvidenceJudgeConfig, seed: int
) -> tuple[Model, Chosen]:
    lines = [Linear.fit(learnt.numbers, learnt.levels, size, strength, seed) for strength in config.regularisation]
    linear = min(lines, key=lambda one: log_loss(one.logits(valid.numbers), valid.levels))
    boosted = Boosted.fit(learnt, valid, size, config, seed)
    losses = [log_loss(one.logits(valid.numbers), valid.levels) for one in (linear, boosted)]
    kind = "linear" if losses[0] <= losses[1] else "boosted"
    model: Model = linear if kind == "linear" else boosted
    return model, Chosen(kind, losses[0], losses[1], temperature_of(model.logits(valid.numbers), valid.levels))


def _labelled(numbers: Floats, levels: NDArray[np.int8], rows: Ints) -> _Labelled:
    own = rows[levels[rows] != UNKNOWN]
    return _Labelled(numbers[own], levels[own])


def _refuse_few(part: _Labelled, what: str, least: int) -> None:
    if len(part.levels) < least:
        why = f"{len(part.levels)} labels, and {least} are the least"
        raise LeftOut("there are too few labels for a judge", where=what, why=why, do="teach more examples")
    if len(np.unique(part.levels)) < 2:
        raise LeftOut("all labels are the same", where=what, do="look at the teacher, or wait for more events")


def temperature_of(logits: NDArray[np.float64], levels: NDArray[np.int8]) -> float:
    """The temperature, 0.2 to 5, whose log loss on these levels is the lowest."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return log_loss(logits / np.exp(log_temperature), levels)

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
    return float(np.exp(found.x))


def log_loss(logits: NDArray[np.float64], levels: NDArray[np.int8]) -> float:
    """Mean of -log P(level): [n, levels] and [n]."""
    chances = softmax(logits)[np.arange(len(levels)), levels]
    return float(-np.log(np.maximum(chances, 1e-12)).mean())


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that add up to 1: [n, levels]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def standard(numbers: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column where it is known; 0 and 1 where it never is, or never differs."""
    known = ~np.isnan(numbers)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, numbers, 0.0).sum(axis=0, dtype=np.float64) / count
    scale = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(scale > 1e-6, scale, 1.0)


def _wide(numbers: Floats, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised, 0 where unknown, and beside it whether it is: [n, 2 * columns]."""
    missing = np.isnan(numbers)
    return np.concatenate([np.where(missing, 0.0, (numbers - mean) / scale), missing], axis=1)
