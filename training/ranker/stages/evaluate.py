"""Stage: the ranker and each of its signals on the same test samples, and the ranker packaged for serving."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import chain

from training.core.catalogue import read_kinds
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.comparison import Comparison
from training.next_item.evaluation import best_of, chosen_samples, measured, write_comparisons
from training.next_item.samples import TABLE, Split, of_catalogue, of_subset, read_samples, training_sequences
from training.next_item.store_features import still_told
from training.ranker.bundle import Bundle
from training.ranker.serve import POPULARITY, package_baseline, rows


@dataclass(frozen=True)
class Config:
    """`split` and `rank_own` as the ranker was learnt for. `samples`: of so many test samples at most, of users drawn
    with the seed. `values`: the metrics that `eval_values` has for each sample."""

    split: Split = "time"
    rank_own: bool = True
    depth: int = 20
    samples: int | None = None
    resamples: int = 1000
    values: tuple[str, ...] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def main(spec: StageSpec) -> StageResult:
    """Measure all rows; hand on `model/`, and `baseline/`, the best signal, for as long as no ranker is champion."""
    config = resolve_config(spec, Config)
    trained = spec.artifact("ranker") / "model"
    bundle = Bundle.load(trained)
    store = still_told(spec, TABLE, bundle.store_features)
    samples = of_catalogue(read_samples(spec, config.split, store=store), bundle.catalogue)
    test = chosen_samples(of_subset(samples, "test"), config.samples, spec.seed)
    found = [
        measured(name, recommender, test, bundle.catalogue, config.depth, config.rank_own)
        for name, recommender in rows(bundle).items()
    ]
    warm = frozenset(chain.from_iterable(training_sequences(samples)))
    kinds = read_kinds(spec, bundle.catalogue)
    compared = Comparison(config.split, found, test, warm, len(bundle.catalogue), kinds, spec.seed, config.resamples)
    with new_folder(spec.out_dir / "model") as scratch:
        shutil.copytree(trained, scratch, dirs_exist_ok=True)
    result = write_comparisons(spec, [compared], config.values)
    best = best_of(bundle.signals, config.split, result.metrics)
    package_baseline(trained, best or POPULARITY, spec.out_dir / "baseline")
    return result
