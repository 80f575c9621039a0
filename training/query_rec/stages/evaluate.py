"""Stage: hints of every row on the same test days, and the model of hints packaged for serving.

Rows: what only counts, and each model as it writes and with its filter and fill (`<row>_shown`). The row `serves` of a
model, filtered and filled, is called `query_rec`: it is what the gate holds. Values are by person and day.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.embeddings import embed_texts
from training.core.errors import DataError, LeftOut
from training.core.files import new_folder, write_json
from training.core.metrics import Floats, intervals, paired_difference
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.comparison import VALUES_SCHEMA, flat, metrics_table
from training.query_rec.counting import QueryCounts
from training.query_rec.examples import Example, Examples
from training.query_rec.hint_list_measures import ListMeasures
from training.query_rec.hint_lists import (
    SampleConfig,
    WrittenLists,
    as_written,
    counted_lists,
    shown_lists,
    write_lists,
)
from training.query_rec.hint_model import HintModel
from training.query_rec.hints import FilterConfig, Hint, HintFilter
from training.query_rec.list_maker import THINK
from training.query_rec.shop_words import ShopWords

SERVED = "query_rec"
"""The row of what is packaged."""
SHOWN = "_shown"
"""Behind the name of a row: filtered and filled up."""
_SPLIT = "time"
Lists = Sequence[Sequence[Hint]]


@dataclass(frozen=True)
class Config:
    """`days`: of so many test days at most. `rows`: each model of hints by its stage; where that was left out there is
    no such row. `serves`: which of them is packaged. `printed`: of so many days the hints that are served are
    written to `hints.txt`, for people."""

    lists: str = "lists"
    days: int = 2000
    rows: Mapping[str, str] = field(default_factory=dict)
    serves: str = ""
    samples: SampleConfig = field(default_factory=SampleConfig)
    hints: FilterConfig = field(default_factory=FilterConfig)
    encoder: str | None = None
    encoder_tokens: int = 32
    resamples: int = 1000
    printed: int = 20


def main(spec: StageSpec) -> StageResult:
    """Measure all rows; hand on `model/`."""
    config = resolve_config(spec, Config)
    if config.serves not in config.rows:
        raise DataError(
            f"there is no row {config.serves!r} to serve",
            why=f"the rows are {', '.join(config.rows) or '(none)'}",
            do="set `serves` of the stage evaluate to one of them",
        )
    lists = Examples.open(spec.artifact(config.lists) / "lists")
    days = lists.read(THINK, {"test"}, config.days)
    if not days:
        raise LeftOut("nobody has searched on a test day", where="query_samples", do="wait, or move the cut dates")
    shop = ShopWords.read(spec)
    counts = QueryCounts.of(lists.searches(), shop.things)
    hints, depth = HintFilter(config.hints, shop.words), config.samples.depth
    measures = ListMeasures([one.observed for one in days], hints, lambda texts: _vectors(spec, config, texts), depth)
    rows: dict[str, Lists] = dict(counted_lists(counts, days, depth))
    valid: dict[str, WrittenLists] = {}
    for row, stage in config.rows.items():
        if spec.left_out(stage):
            continue
        written = write_lists(row, HintModel.load(spec.artifact(stage) / "model"), days, config.samples, spec.seed)
        valid[row] = written
        rows[row] = as_written(written)
        rows[SERVED if row == config.serves else f"{row}{SHOWN}"] = shown_lists(written, days, counts, hints, depth)
    values = {row: measures.values(own) for row, own in rows.items()}
    if SERVED in rows:
        _package(spec, config)
        _print(spec.out_dir / "hints.txt", days, rows[SERVED], config.printed)
    lines = _lines(values, measures.names, days, config, spec.seed)
    metrics = {
        **flat(lines),
        **_differences(values, measures.names, days, config, spec.seed),
        **{f"{row}.valid": float(np.mean(own.valid)) for row, own in valid.items()},
        **{f"{row}.different_queries": float(_different(own)) for row, own in rows.items()},
        "days": float(len(days)),
    }
    return _written(spec, days, values, measures.names, lines, metrics)


def _lines(
    values: Mapping[str, Floats], names: Sequence[str], days: Sequence[Example], config: Config, seed: int
) -> list[dict[str, Any]]:
    """A line for each row and measure, with its interval by person, of the days that the measure knows."""
    lines = []
    users = np.array([one.person.user_id for one in days])
    for row, own in values.items():
        for place, name in enumerate(names):
            known = ~np.isnan(own[:, place])
            (found,) = intervals(
                own[known, place : place + 1], users[known].tolist(), seed=seed, resamples=config.resamples
            )
            ends = {"value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "scored": int(known.sum())}
            lines.append({"model": row, "metric": name, "slice": "all", **ends, "reason": None})
    return lines


def _differences(
    values: Mapping[str, Floats], names: Sequence[str], days: Sequence[Example], config: Config, seed: int
) -> dict[str, float]:
    """What is served minus each other row, paired by day: `query_rec.minus.popular.recall@30`, with `.lo` and `.hi`."""
    found: dict[str, float] = {}
    for row in (row for row in values if SERVED in values and row != SERVED):
        for place, name in enumerate(names):
            own, other = values[SERVED][:, place], values[row][:, place]
            known = ~np.isnan(own) & ~np.isnan(other)
            if known.any():
                users = [one.person.user_id for one, there in zip(days, known, strict=True) if there]
                pair = (own[known][:, None], other[known][:, None])
                (gap,) = paired_difference(*pair, users, seed=seed, resamples=config.resamples)
                key = f"{SERVED}.minus.{row}.{name}"
                found |= {key: gap.value, f"{key}.lo": gap.lo, f"{key}.hi": gap.hi}
    return found


def _written(
    spec: StageSpec,
    days: Sequence[Example],
    values: Mapping[str, Floats],
    names: Sequence[str],
    lines: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
) -> StageResult:
    origin = spec.tables["query_samples"].origin if "query_samples" in spec.tables else "simulated"
    tables = {
        "model_metrics": metrics_table(lines, origin, _SPLIT, max(one.day for one in days)),
        "eval_values": pa.concat_tables([_values(row, own, names, days) for row, own in values.items()]),
    }
    files = {name: f"tables/{name}/part-0.parquet" for name in tables}
    for name, file in files.items():
        (spec.out_dir / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables[name], spec.out_dir / file)
    return StageResult(metrics, {name: (file,) for name, file in files.items()})


def _values(row: str, values: Floats, names: Sequence[str], days: Sequence[Example]) -> pa.Table:
    asked = {
        "unit": [one.person.user_id for one in days],
        "sample": [f"{one.day} {one.request_id}" for one in days],
        "slices": [[]] * len(days),
    }
    found = []
    for place, name in enumerate(names):
        words = {"model": row, "split": _SPLIT, "name": name}
        columns = {**asked, **{key: [word] * len(days) for key, word in words.items()}}
        arrays = {key: pa.array(column, VALUES_SCHEMA.field(key).type) for key, column in columns.items()}
        value = pa.array(values[:, place], mask=np.isnan(values[:, place]))
        found.append(pa.table(arrays | {"value": value}).select(VALUES_SCHEMA.names))
    return pa.concat_tables(found)


def _package(spec: StageSpec, config: Config) -> None:
    """The model that is served, with its filter, and the searches that fill up what it leaves empty."""
    lists = spec.artifact(config.lists) / "lists"
    with new_folder(spec.out_dir / "model") as scratch:
        shutil.copytree(spec.artifact(config.rows[config.serves]) / "model", scratch, dirs_exist_ok=True)
        shutil.copy(lists / "searches.parquet", scratch / "searches.parquet")
        write_json(scratch / "hints.json", {"samples": asdict(config.samples), "hints": asdict(config.hints)})


def _print(file: Path, days: Sequence[Example], lists: Lists, count: int) -> None:
    """For each of the first days the last thing that was told, what was searched for, and the first hints."""
    lines = []
    for day, own in zip(days[:count], lists, strict=False):
        last = day.told.contents[-1] if day.told.contents else "(nothing)"
        shown = ", ".join(f"{hint.query} [{hint.source}]" for hint in own[:5])
        lines.append(f"after {last!r} searched for {', '.join(day.observed)!r}: {shown}")
    file.write_text("\n".join(lines) + "\n")


def _different(lists: Lists) -> int:
    return len({hint.query.lower() for own in lists for hint in own})


def _vectors(spec: StageSpec, config: Config, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    encoder = Path(config.encoder) if config.encoder else None
    found = embed_texts(texts, spec.out_dir / "vectors", encoder=encoder, max_tokens=config.encoder_tokens)
    return np.asarray(found, dtype=np.float32)
