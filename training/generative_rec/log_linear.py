"""What is served: the ranker's score and the generator's place of an item, weighed: a log-linear pool of both.

Two weights, by the likelihood of what was taken among its candidates (conditional logit, McFadden 1974; pooling: Genest
and Zidek 1986), neither below 0. So little is learnt because so little is there: the questions that neither of the two
has learnt from are few, and the ranker's score stands for all that was learnt elsewhere. Trees over all signals and the
generator, learnt from these questions alone, lost a fifth of what the ranker has in a small shop (docs/LOG.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from training.core.errors import LeftOut
from training.core.files import write_json
from training.ranker.calibration import Calibration
from training.ranker.features import Table
from training.ranker.learner import Labelled, ndcg_of
from training.ranker.serve import Mixture
from training.ranker.signals.base import Floats, Ints, Mask

_FILE = "mixture.json"
Doubles = NDArray[np.float64]
Weights = tuple[float, float]


@dataclass(frozen=True)
class Pool:
    """What is weighed: the ranker's score, and log((beams + 1) / place) of an item that the generator names.

    `generator` is the signal's name. An item that none of its beams ends in has 0, as one behind the last would.
    """

    ranker: Mixture
    generator: str
    beams: int

    def parts(self, table: Table) -> Doubles:
        """Both, of each pair: [pairs, 2]."""
        place = table.values[:, table.names.index(f"{self.generator}.rank")].astype(np.float64)
        said = np.log((self.beams + 1) / place)
        return np.stack([self.ranker.scores(table), np.where(np.isnan(place), 0.0, said)], axis=1)


@dataclass(frozen=True)
class LogLinear:
    """A pool with its `weights`, and what a weighed score is worth."""

    pool: Pool
    weights: Weights
    calibration: Calibration

    @classmethod
    def fit(cls, pool: Pool, learnt: Labelled) -> LogLinear:
        """Learn the weights, and what a score is worth, from questions that neither of the two has learnt from.

        The generator has a weight only where the lists are better with it by more than a standard error (Breiman et al.
        1984): one that follows the ranker, or knows less, would be given some by chance.

        Raises:
            LeftOut: no answer is among the candidates.
        """
        answered = learnt.answerable()
        if not len(answered.questions):
            raise LeftOut("no signal names an item that was taken next", do="wait for more events")
        parts = pool.parts(answered.table)
        alone, mixed = (_most_likely(parts * said, answered.questions, answered.taken) for said in ((1, 0), (1, 1)))
        gain = ndcg_of(_weighed(parts, mixed), answered) - ndcg_of(_weighed(parts, alone), answered)
        weights = mixed if gain.mean() > gain.std() / np.sqrt(len(gain)) else alone
        scores = _weighed(pool.parts(learnt.table), weights)
        return cls(pool, weights, Calibration.of(scores, learnt.taken))

    def scores(self, table: Table) -> Floats:
        """See `Ranker.scores`."""
        return _weighed(self.pool.parts(table), self.weights)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Ranker.probabilities`."""
        return self.calibration(scores)

    def reasons(self, table: Table) -> tuple[tuple[str, ...], Floats]:
        """See `Ranker.reasons`; the generator adds to an item what it has before one that no beam ends in."""
        groups, added = self.pool.ranker.reasons(table)
        by_ranker, by_generator = self.weights
        own = by_generator * self.pool.parts(table)[:, 1:]
        return (*groups, self.pool.generator), np.hstack([by_ranker * added, own]).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write what `load` reads, beside the ranker's own files."""
        facts = {"generator": self.pool.generator, "beams": self.pool.beams, "weights": self.weights}
        write_json(folder / _FILE, {**facts, **self.calibration.facts()})

    @classmethod
    def load(cls, folder: Path, ranker: Mixture) -> LogLinear:
        """Read it, for the ranker of the folder."""
        facts = json.loads((folder / _FILE).read_text())
        pool = Pool(ranker, facts["generator"], facts["beams"])
        return cls(pool, tuple(facts["weights"]), Calibration.of_facts(facts))

    @staticmethod
    def there_is_one(folder: Path) -> bool:
        """Whether one was saved there."""
        return (folder / _FILE).is_file()


def _weighed(parts: Doubles, weights: Weights) -> Floats:
    return np.asarray(parts @ np.array(weights), dtype=np.float32)


def _most_likely(parts: Doubles, questions: Ints, taken: Mask) -> Weights:
    """The weights under which what was `taken` is most likely: of each question one pair, questions in rising order."""
    starts = np.flatnonzero(np.diff(questions, prepend=-1))
    group = np.cumsum(np.diff(questions, prepend=-1) > 0) - 1

    def unlikely(weights: Doubles) -> tuple[float, Doubles]:
        """The mean negative log-likelihood, and its gradient."""
        scores = parts @ weights
        scores -= np.maximum.reduceat(scores, starts)[group]
        chances = np.exp(scores)
        sums = np.add.reduceat(chances, starts)
        chances /= sums[group]
        gradient = (chances[:, None] * parts).sum(0) - parts[taken].sum(0)
        return float(np.log(sums).sum() - scores[taken].sum()) / len(starts), gradient / len(starts)

    bounds = [(0.0, None)] * parts.shape[1]
    found = scipy.optimize.minimize(unlikely, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds)
    by_ranker, by_generator = found.x.tolist()
    return by_ranker, by_generator
