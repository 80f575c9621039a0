"""What a shop is to its ranker: its items, what is learnt of its samples, and candidates whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from training.core.catalogue import read_catalogue
from training.core.progress import Progress
from training.core.stage import StageSpec, read_table
from training.next_item.sample_columns import Samples
from training.next_item.samples import TABLE, Split, of_subset
from training.ranker.bundle import Bundle
from training.ranker.candidates import Depth, candidates
from training.ranker.features import Facts, features
from training.ranker.learner import Labelled
from training.ranker.parts import Rows
from training.ranker.signals.base import Learnt
from training.ranker.signals.fitting import Fitted, SignalsConfig, Vectors, choose, fit_as_chosen
from training.ranker.signals.validation import Validation

Item = Mapping[str, Any]
_AT_ONCE, _FEATURES_AT_ONCE = 4096, 1024  # questions; the features of the second are made together
_PAIRS = 2_500_000  # more of them are not held: their features take half a GiB


def read_items(spec: StageSpec) -> list[dict[str, Any]]:
    """The catalogue, with prices."""
    items, prices = (
        read_catalogue(spec, (), TABLE),
        read_table(spec, "items", {"item_id": pa.string(), "price": pa.float64()}),
    )
    price = dict(zip(prices["item_id"].to_pylist(), prices["price"].to_pylist(), strict=True))
    return [{**item, "price": price[item["item_id"]]} for item in items]


@dataclass(frozen=True)
class Shop:
    """`items`: the catalogue. `vectors`: of their texts, by kind. `rank_own`: may a user's own items be ranked."""

    items: Sequence[Item]
    split: Split
    rank_own: bool
    seed: int
    vectors: Vectors = field(default_factory=dict)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    depth: Depth = field(default_factory=Depth)

    def fitted(self, samples: Samples) -> Bundle:
        """Signals of the training part, each as it ranks the validation part best."""
        rows, valid = self._rows(samples), of_subset(samples, "valid")
        learnt = rows.learnt(len(self.items), self.seed)
        validation = Validation(rows.questions(valid), rows.truth(valid), self.rank_own)
        return self._bundle(rows, learnt, choose(learnt, validation, self.signals, self.vectors))

    def again(self, samples: Samples, as_chosen: Fitted) -> Bundle:
        """The same signals of another training part."""
        rows = self._rows(samples)
        learnt = rows.learnt(len(self.items), self.seed)
        signals = fit_as_chosen(learnt, as_chosen.chosen, self.signals, self.vectors)
        return self._bundle(rows, learnt, Fitted(signals, as_chosen.chosen, as_chosen.choices))

    def _rows(self, samples: Samples) -> Rows:
        return Rows.of(samples, [item["item_id"] for item in self.items])

    def _bundle(self, rows: Rows, learnt: Learnt, fitted: Fitted) -> Bundle:
        catalogue = [item["item_id"] for item in self.items]
        facts, pasts = Facts.of(learnt, self.items), rows.pasts_by_name()
        until = max((int(days.max()) for days in learnt.days), default=0)
        return Bundle(catalogue, fitted, facts, pasts, self.depth, self.rank_own, self.split, until)


def labelled(bundle: Bundle, samples: Samples, asked: Samples, limit: int, seed: int, *, answered: bool) -> Labelled:
    """Candidates of at most `limit` of the samples that are `asked`, by the signals of the bundle, and which was taken.

    `answered`: without those whose answer is no candidate, of which no order is learnt. Some questions at a time, drawn
    at random, until they are all or their candidates as many as may be held: a larger shop has more of both.
    """
    rows, drawn = Rows.of(samples, bundle.catalogue), np.random.default_rng(seed).permutation(len(asked))[:limit]
    parts, held = list[Labelled](), 0
    with Progress(len(drawn), "candidates", "question") as progress:
        for start in range(0, len(drawn), _AT_ONCE):
            part = asked.chosen(asked.rows[np.sort(drawn[start : start + _AT_ONCE])])
            found = _candidates(bundle, rows, part)
            parts.append(found.answerable() if answered else found)
            progress.advance(len(part))
            held += len(parts[-1].questions)
            if held >= _PAIRS:
                break
    return Labelled.joined(parts)


def _candidates(bundle: Bundle, rows: Rows, asked: Samples) -> Labelled:
    return Labelled.joined(
        [
            _featured(bundle, rows, asked.chosen(asked.rows[start : start + _FEATURES_AT_ONCE]))
            for start in range(0, len(asked), _FEATURES_AT_ONCE)
        ]
    )


def _featured(bundle: Bundle, rows: Rows, asked: Samples) -> Labelled:
    questions, truth = rows.questions(asked), rows.truth(asked)
    left_out = None if bundle.rank_own else questions.histories
    found = candidates(bundle.mixed, questions, bundle.depth, None, left_out)
    table = features(bundle.mixed, found, questions, bundle.facts)
    return Labelled(table, found.pairs.questions, found.pairs.items == truth[found.pairs.questions])
