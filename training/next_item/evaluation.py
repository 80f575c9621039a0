"""A recommender on test samples, and what an evaluation leaves: the tables `model_metrics` and `eval_values`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import LeftOut
from training.core.metrics import rank_of
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec
from training.next_item.comparison import COMPARED, VALUES_SCHEMA, Comparison, Row, flat, metrics_table
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.next_item.samples import TABLE, NextItem, Split

_CHUNK = 256


def chosen_samples(test: Sequence[NextItem], limit: int | None, seed: int) -> list[NextItem]:
    """All of `test`, or the samples of users in a seeded order, cut at `limit`."""
    if not test:
        raise LeftOut("there is no test sample", where=TABLE, do="move the cut dates of the split")
    if limit is None or len(test) <= limit:
        return list(test)
    users = sorted({sample.user_id for sample in test})
    place = {users[row]: order for order, row in enumerate(np.random.default_rng(seed).permutation(len(users)))}
    return sorted(test, key=lambda sample: place[sample.user_id])[:limit]


def measured(
    name: str,
    recommender: Recommender,
    test: Sequence[NextItem],
    catalogue: Collection[str],
    depth: int,
    rank_own: bool,
) -> Row:
    """The row of a recommender: its lists of `depth` items of the catalogue for the test samples.

    Raises:
        AssertionError: it has recommended an item that the catalogue does not have.
    """
    # What a user does on one day are several questions with one history, and so one list.
    questions = [ListRequest.after(s.history, s.user_id, s.store_features, rank_own=rank_own) for s in test]
    asked, found = list(dict.fromkeys(questions)), list[Ranking]()
    # A model of an earlier day may know items that are gone.
    within = None if set(recommender.catalogue) <= set(catalogue) else catalogue
    with Progress(len(asked), f"evaluate {name}", "question") as progress:
        for start in range(0, len(asked), _CHUNK):
            part = asked[start : start + _CHUNK]
            found += recommender.answer(part, depth, within)
            progress.advance(len(part))
    answers = {question: [item for item, _ in line] for question, line in zip(asked, found, strict=True)}
    lists = [answers[question] for question in questions]
    invented = {item for line in lists for item in line} - frozenset(catalogue)
    if invented:
        raise AssertionError(f"{name} recommended items that do not exist: {sorted(invented)[:5]}")
    ranks = np.array([rank_of(s.item_id, line) for s, line in zip(test, lists, strict=True)])
    return Row(name, lists, ranks, recommender.choice)


def metric_of(split: Split, name: str) -> str:
    """The name of a metric in a result: that of the time split is its own, any other begins with its split."""
    return name if split == "time" else f"{split}.{name}"


def best_of(names: Iterable[str], split: Split, metrics: Mapping[str, float]) -> str | None:
    """The row of these with the best NDCG@10 of a split, the first of equals; None where none was measured."""
    found = {name: metrics.get(metric_of(split, f"{name}.{COMPARED}")) for name in names}
    known = {name: value for name, value in found.items() if value is not None}
    return max(known, key=lambda name: known[name], default=None)


def write_comparisons(spec: StageSpec, found: Sequence[Comparison], names: Sequence[str]) -> StageResult:
    """Write the tables `model_metrics` and `eval_values`, the latter of these metrics.

    In the result they are named by `metric_of`.
    """
    origin, metrics = spec.tables[TABLE].origin, dict[str, float]()
    means, values = [metrics_table([], origin, "", None)], [VALUES_SCHEMA.empty_table()]
    for comparison in found:
        lines = comparison.lines()
        means.append(comparison.metrics_table(lines, origin))
        values.append(comparison.values_table(names))
        sizes = {"test_samples": float(len(comparison.test)), "catalogue": float(comparison.catalogue)}
        own = {**flat(lines), **comparison.differences(), **sizes}
        metrics |= {metric_of(comparison.split, name): value for name, value in own.items()}
    tables = {"model_metrics": pa.concat_tables(means), "eval_values": pa.concat_tables(values)}
    files = {name: f"tables/{name}/part-0.parquet" for name in tables}
    for name, file in files.items():
        (spec.out_dir / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables[name], spec.out_dir / file)
    return StageResult(metrics, {name: (file,) for name, file in files.items()})
