"""Stage: the hint ranker on the test days beside what only counts, a logistic regression and boosted trees on the same
numbers, and the ranker packaged for serving.

`hint_ranker.untold` is the same ranker where nothing is known of the query but its words: what a generated one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.metrics import Interval
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.comparison import VALUES_SCHEMA, flat, metrics_table
from training.query_rec.calibration import Doubles, log_loss
from training.query_rec.hint_baselines import Boosting, Logits, baselines, calibrated
from training.query_rec.hint_examples import TABLE, Examples, day_of, read_hints
from training.query_rec.hint_measures import (
    FORMULAS,
    Bootstrap,
    Requests,
    auc,
    by_request,
    calibration_error,
    difference,
    measured,
    slices,
    values_table,
)
from training.query_rec.hint_questions import NAMES, OF_QUERY, Questions
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.serve import HINT_RANKER, package

UNTOLD = f"{HINT_RANKER}.untold"


@dataclass(frozen=True)
class Config:
    """`requests`: the rows beside it learn of as many as the ranker did."""

    boosting: Boosting = field(default_factory=Boosting)
    requests: int | None = None
    resamples: int = 1000


def main(spec: StageSpec) -> StageResult:
    """Measure all rows; hand on `model/`."""
    config = resolve_config(spec, Config)
    folder = spec.artifact("hint_ranker") / "model"
    ranker = HintRanker.load(folder)
    network = ranker.facts.network
    hints = read_hints(spec, network.length, network.buckets, config.requests)
    train, valid, test = (hints.parts[part] for part in ("train", "valid", "test"))
    rows: dict[str, Logits] = {**baselines(train, valid, config.boosting, spec.seed), HINT_RANKER: ranker.logits}
    chances = {name: calibrated(row, valid)(test.questions) for name, row in rows.items()}
    chances[HINT_RANKER] = ranker.chances_of(test.questions)
    chances[UNTOLD] = ranker.chances_of(untold(test.questions))
    known = set(train.questions.query.tolist())
    seen = np.array([query in known for query in test.questions.query.tolist()], dtype=bool)
    package(folder, spec.out_dir / "model")
    return _written(spec, config, test, chances, slices(test, seen))


def untold(questions: Questions) -> Questions:
    """The same of queries that the store knows nothing of."""
    hidden = [name in OF_QUERY or name.startswith("click_share") for name in NAMES]
    return replace(questions, numbers=np.where(hidden, np.float32(np.nan), questions.numbers))


def _written(
    spec: StageSpec, config: Config, test: Examples, chances: Mapping[str, Doubles], parts: Mapping[str, Any]
) -> StageResult:
    """The tables `model_metrics` and `eval_values`, and each row beside the ranker, paired."""
    by, requests = Bootstrap(spec.seed, config.resamples), Requests.among(test)
    sums = {name: by_request(own, test, requests) for name, own in chances.items()}
    lines, compared = list[dict[str, Any]](), dict[str, float]()
    for name, own in chances.items():
        for metric, found in measured(sums[name], requests, by).items():
            lines.append(_line(name, metric, "all", found))
        lines += _counts(name, "all", own, test)
        for part, chosen in parts.items():
            lines += _counts(name, part, own[chosen], test.chosen(np.flatnonzero(chosen)), ordered=True)
        if name != HINT_RANKER:
            for metric in FORMULAS:
                gap, key = (
                    difference(sums[HINT_RANKER], sums[name], metric, requests, by),
                    f"{HINT_RANKER}.minus.{name}.{metric}",
                )
                compared |= {key: gap.value, f"{key}.lo": gap.lo, f"{key}.hi": gap.hi}
    day, origin = day_of(test.days), spec.tables[TABLE].origin
    tables = {
        "model_metrics": metrics_table(lines, origin, "time", day),
        "eval_values": pa.concat_tables(
            [values_table(name, own, requests, VALUES_SCHEMA) for name, own in sums.items()]
        ),
    }
    files = {name: f"tables/{name}/part-0.parquet" for name in tables}
    for name, file in files.items():
        (spec.out_dir / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables[name], spec.out_dir / file)
    sizes = {
        "test_hints": float(len(test)),
        "test_requests": float(len(requests.ids)),
        "test_clicks": float(test.clicked.sum()),
    }
    return StageResult({**flat(lines), **compared, **sizes}, {name: (file,) for name, file in files.items()})


def _counts(name: str, part: str, chances: Doubles, held: Examples, *, ordered: bool = False) -> list[dict[str, Any]]:
    """What has no interval: whether chances are what happens, and of a slice their order and log loss."""
    clicked = held.clicked
    values = {"ece": calibration_error(chances, clicked)}
    if clicked.any():
        values["said_over_happened"] = float(chances.sum() / clicked.sum())
    if ordered:
        values |= {"log_loss": log_loss(chances, clicked), "auc": auc(chances, clicked)}
    lines = [_line(name, metric, part, Interval(value, value, value, len(held))) for metric, value in values.items()]
    return [{**line, "lo": None, "hi": None} for line in lines if not np.isnan(line["value"])]


def _line(model: str, metric: str, part: str, found: Interval) -> dict[str, Any]:
    ends = {"value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "scored": found.n}
    return {"model": model, "metric": metric, "slice": part, **ends, "reason": None}
