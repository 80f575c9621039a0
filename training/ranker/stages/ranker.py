"""Stage: the signals of a shop, fitted and chosen on its own data, and the ranker that mixes them.

Signals are fitted on the training part and choose on the validation part; what they chose is fitted again on the part
before the ranker's own events, and of what those say of these the mixture is learnt (`parts`). A run that was killed
goes on with the signals that were fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from training.core.catalogue import item_text, read_catalogue
from training.core.embeddings import embed_texts
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, read_table, resolve_config
from training.next_item.sample_columns import Samples
from training.next_item.samples import TABLE, Split, of_catalogue, of_subset, read_samples
from training.ranker.bundle import Bundle
from training.ranker.candidates import Depth, candidates
from training.ranker.features import Facts, features
from training.ranker.learner import Labelled, LearnerConfig, Ranker
from training.ranker.parts import LearnFrom, Parts, Rows, parted
from training.ranker.serve import package
from training.ranker.signals.base import Ints, Learnt, Questions
from training.ranker.signals.fitting import Fitted, SignalsConfig, Vectors, choose, fit_as_chosen
from training.ranker.signals.text import tf_idf
from training.ranker.signals.validation import Validation

Item = Mapping[str, Any]
_AT_ONCE = 4096


@dataclass(frozen=True)
class Config:
    """`learn_from`, `share`: see `parts.parted`. The ranker learns from so many `questions` at most, and stops and is
    calibrated on `stop_questions`, drawn with the seed. `rank_own`: may a user's own items be ranked. `texts`: what
    there is to choose from for the similarity of texts, of which the encoder reads `max_tokens`."""

    split: Split = "time"
    learn_from: LearnFrom = "train"
    share: float = 0.15
    questions: int = 30000
    stop_questions: int = 5000
    rank_own: bool = True
    depth: Depth = field(default_factory=Depth)
    texts: tuple[Literal["tf_idf", "encoder"], ...] = ("tf_idf", "encoder")
    max_tokens: int = 64
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)


def main(spec: StageSpec) -> StageResult:
    """Fit, learn, and leave `model/`."""
    config = resolve_config(spec, Config)
    items = _read_items(spec)
    catalogue = [item["item_id"] for item in items]
    if len(catalogue) < 2:
        raise LeftOut("the catalogue has one item: there is nothing to rank", do="wait for more items")
    samples = of_catalogue(read_samples(spec, config.split), catalogue)
    parts = parted(samples, config.split, config.learn_from, config.share, spec.seed)
    shop = _Shop(spec, config, items, _vectors(spec, config, items))
    full = _kept(spec.out_dir / "full", lambda: shop.fitted(parts.full))
    early = full if parts.early is None else _kept(spec.out_dir / "early", lambda: shop.again(parts, full.fitted))
    learnt = shop.labelled(parts.early or parts.full, parts.learn, early, config.questions, answered=True)
    stop = shop.labelled(parts.full, parts.stop, full, config.stop_questions, answered=False)
    ranker = Ranker.fit(learnt, stop, config.learner, spec.seed)
    until = int(parts.learn.days[parts.learn.rows].max())
    package(full.with_ranker(ranker, until), spec.out_dir / "model")
    return StageResult(_metrics(full, ranker, learnt, stop))


def _read_items(spec: StageSpec) -> list[dict[str, Any]]:
    """The catalogue, with prices."""
    prices = read_table(spec, "items", {"item_id": pa.string(), "price": pa.float64()})
    price = dict(zip(prices["item_id"].to_pylist(), prices["price"].to_pylist(), strict=True))
    return [{**item, "price": price[item["item_id"]]} for item in read_catalogue(spec, (), TABLE)]


def _vectors(spec: StageSpec, config: Config, items: Sequence[Item]) -> Vectors:
    """Of the items' texts, by kind; an item without one has the vector 0."""
    texts = [item_text(item, None) for item in items]
    if not any(texts):
        return {}
    found: dict[str, Any] = {}
    if "tf_idf" in config.texts:
        found["tf_idf"] = tf_idf(texts)
    if "encoder" in config.texts:
        vectors = embed_texts(texts, spec.out_dir / "embeddings", max_tokens=config.max_tokens)
        vectors[[not text for text in texts]] = 0.0
        found["encoder"] = vectors
    return found


def _kept(folder: Path, make: Callable[[], Bundle]) -> Bundle:
    """What an earlier try of this stage has made, or what is made now."""
    if not folder.is_dir():
        bundle = make()
        with new_folder(folder) as scratch:
            bundle.save(scratch)
    return Bundle.load(folder)


@dataclass(frozen=True)
class _Shop:
    spec: StageSpec
    config: Config
    items: Sequence[Item]
    vectors: Vectors

    def fitted(self, samples: Samples) -> Bundle:
        """Signals of the training part, each as it ranks the validation part best."""
        rows, valid = self._rows(samples), of_subset(samples, "valid")
        learnt = rows.learnt(len(self.items), self.spec.seed)
        validation = Validation(rows.questions(valid), rows.truth(valid), self.config.rank_own)
        return self._bundle(rows, learnt, choose(learnt, validation, self.config.signals, self.vectors))

    def again(self, parts: Parts, as_chosen: Fitted) -> Bundle:
        """The same signals of the training part of `early`."""
        rows = self._rows(parts.early or parts.full)
        learnt = rows.learnt(len(self.items), self.spec.seed)
        signals = fit_as_chosen(learnt, as_chosen.chosen, self.config.signals, self.vectors)
        return self._bundle(rows, learnt, Fitted(signals, as_chosen.chosen, as_chosen.choices))

    def labelled(self, samples: Samples, asked: Samples, bundle: Bundle, limit: int, answered: bool) -> Labelled:
        """Candidates of at most `limit` of these samples, by the signals of the bundle, and which of them was taken.

        `answered`: without those whose answer is no candidate, of which no order is learnt. Some questions at a time:
        the candidates of all of them are many more than those that stay.
        """
        rows, drawn = self._rows(samples), np.random.default_rng(self.spec.seed).permutation(len(asked))
        chosen, parts = asked.rows[np.sort(drawn[:limit])], list[Labelled]()
        for start in range(0, len(chosen), _AT_ONCE):
            part = asked.chosen(chosen[start : start + _AT_ONCE])
            found = self._candidates(rows.questions(part), rows.truth(part), bundle)
            parts.append(found.answerable() if answered else found)
        return Labelled.joined(parts)

    def _candidates(self, questions: Questions, truth: Ints, bundle: Bundle) -> Labelled:
        left_out = None if self.config.rank_own else questions.histories
        found = candidates(bundle.signals, questions, bundle.depth, None, left_out)
        table = features(bundle.signals, found, questions, bundle.facts)
        return Labelled(table, found.pairs.questions, found.pairs.items == truth[found.pairs.questions])

    def _rows(self, samples: Samples) -> Rows:
        return Rows.of(samples, [item["item_id"] for item in self.items])

    def _bundle(self, rows: Rows, learnt: Learnt, fitted: Fitted) -> Bundle:
        catalogue = [item["item_id"] for item in self.items]
        facts, pasts = Facts.of(learnt, self.items), rows.pasts_by_name()
        until = max(int(days.max()) for days in learnt.days)
        return Bundle(
            catalogue, fitted, facts, pasts, self.config.depth, self.config.rank_own, self.config.split, until
        )


def _metrics(full: Bundle, ranker: Ranker, learnt: Labelled, stop: Labelled) -> dict[str, float]:
    found = {f"valid.{name}.ndcg@10": choice.ndcg for name, choice in full.fitted.choices.items()}
    answered = {"learnt.answered": float(learnt.taken.sum()), "stop.answered": float(stop.taken.sum())}
    return {**found, **answered, "trees": float(ranker.trees.num_trees())}
