"""Stage: the signals of a shop, fitted and chosen on its own data, and the ranker that mixes them.

Signals are fitted on the training part and choose on the validation part; what they chose is fitted again on the part
before the ranker's own events, and of what those say of these the mixture is learnt (`parts`). A run that was killed
goes on with the signals that were fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.core.catalogue import item_text
from training.core.embeddings import embed_texts, kept_vectors
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.samples import TABLE, Split, of_catalogue, read_samples
from training.next_item.store_features import chosen
from training.ranker.bundle import Bundle
from training.ranker.candidates import Depth
from training.ranker.learner import Labelled, LearnerConfig, Ranker
from training.ranker.parts import LearnFrom, Parts, parted
from training.ranker.serve import package
from training.ranker.shop import Item, Shop, labelled, read_items
from training.ranker.signals.fitting import SignalsConfig, Vectors
from training.ranker.signals.text import tf_idf


@dataclass(frozen=True)
class Config:
    """`learn_from`, `share`: see `parts.parted`. The ranker learns from so many `questions` at most, and stops and is
    calibrated on `stop_questions`, drawn with the seed. `rank_own`: may a user's own items be ranked. `texts`: what
    there is to choose from for the similarity of texts, of which the encoder reads `max_tokens`. `store_features`: what
    the feature store says of the user that is a feature of the candidates, by full names of `next_item_training_set`:
    `user_daily__events_30d`."""

    split: Split = "time"
    learn_from: LearnFrom = "train"
    share: float = 0.15
    questions: int = 30000
    stop_questions: int = 10000
    rank_own: bool = True
    depth: Depth = field(default_factory=Depth)
    texts: tuple[Literal["tf_idf", "encoder"], ...] = ("tf_idf", "encoder")
    max_tokens: int = 64
    store_features: tuple[str, ...] = ()
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)


def main(spec: StageSpec) -> StageResult:
    """Fit, learn, and leave `model/`."""
    config = resolve_config(spec, Config)
    items = read_items(spec)
    catalogue = [item["item_id"] for item in items]
    if len(catalogue) < 2:
        raise LeftOut("the catalogue has one item: there is nothing to rank", do="wait for more items")
    store = chosen(spec, TABLE, config.store_features)
    samples = of_catalogue(read_samples(spec, config.split, store=store), catalogue)
    parts = parted(samples, config.split, config.learn_from, config.share, spec.seed)
    vectors = _vectors(spec, config, items)
    shop = Shop(items, config.split, config.rank_own, spec.seed, vectors, config.signals, config.depth)
    full = _kept(spec.out_dir / "full", lambda: shop.fitted(parts.full))
    learnt = _learnt(spec, config, parts, shop, full)
    stop = labelled(full, parts.full, parts.stop, config.stop_questions, spec.seed, answered=False)
    ranker = Ranker.fit(learnt, stop, config.learner, spec.seed)
    until = int(parts.learn.days[parts.learn.rows].max())
    package(full.with_ranker(ranker, until, config.learn_from), spec.out_dir / "model")
    return StageResult(_metrics(full, ranker, learnt, stop))


def _learnt(spec: StageSpec, config: Config, parts: Parts, shop: Shop, full: Bundle) -> Labelled:
    """What the mixture is learnt of. Signals of the early days are as large as those of `full`: here they end."""
    early, before = parts.early, full
    if early is not None:
        before = _kept(spec.out_dir / "early", lambda: shop.again(early, full.fitted))
    return labelled(before, early or parts.full, parts.learn, config.questions, spec.seed, answered=True)


def _vectors(spec: StageSpec, config: Config, items: Sequence[Item]) -> Vectors:
    """Of the items' texts, by kind; an item without one has the vector 0."""
    texts = [item_text(item, None) for item in items]
    if not any(texts):
        return {}
    found: dict[str, Any] = {}
    if "tf_idf" in config.texts:
        found["tf_idf"] = tf_idf(texts)
    if "encoder" in config.texts:
        vectors = embed_texts(texts, kept_vectors(), max_tokens=config.max_tokens)
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


def _metrics(full: Bundle, ranker: Ranker, learnt: Labelled, stop: Labelled) -> dict[str, float]:
    found = {f"valid.{name}.ndcg@10": choice.ndcg for name, choice in full.fitted.choices.items()}
    answered = {"learnt.answered": float(learnt.taken.sum()), "stop.answered": float(stop.taken.sum())}
    return {**found, **answered, "trees": float(ranker.trees.num_trees())}
