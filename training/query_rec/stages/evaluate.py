"""Stage: hints of every row on the same test days, and the models of hints packaged for serving.

Rows: what only counts, each way of it alone and `counted`, which is what is shown without any model; and each model
as it writes and with its filter and fill (`<row>_shown`). What is packaged are the rows `serves`, one of each form;
filtered and filled they are called `query_rec_direct` and `query_rec_think`, and both are what the gate holds, against
`counted` too: what they have more is what the model adds. Values are by person and day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.embeddings import embed_texts, kept_vectors
from training.core.errors import DataError, LeftOut
from training.core.metrics import Floats, intervals, paired_difference
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.comparison import VALUES_SCHEMA, flat, metrics_table
from training.query_rec.counting import ROWS, QueryCounts
from training.query_rec.examples import Example, Examples
from training.query_rec.hint_list_measures import OF_SOME, ListMeasures
from training.query_rec.hint_model import Form, HintModel
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.hint_writer import (
    FORMS,
    Fill,
    HintWriter,
    WriterConfig,
    WrittenLists,
    as_written,
    write_lists,
)
from training.query_rec.hints import Hint, HintFilter
from training.query_rec.list_maker import THINK
from training.query_rec.purchases import Purchases
from training.query_rec.serve import package_writer as package
from training.query_rec.shop_words import ShopWords

SERVED: Mapping[Form, str] = {form: f"query_rec_{form}" for form in FORMS}
"""The rows of what is packaged."""
SHOWN = "_shown"
"""Behind the name of a row: filtered and filled up."""
COUNTED = "counted"
"""The row of what is shown without a model."""
_SPLIT = "time"
Lists = Sequence[Sequence[Hint]]


@dataclass(frozen=True)
class Config:
    """`days`: of so many test days at most. `rows`: each model of hints by its stage; where that was left out there is
    no such row. `serves`: which of them is packaged of each form; nothing is where one of the two was left out.
    `printed`: of so many days the hints of Direct are written to `hints.txt`, for people. `ranker`: the stage whose
    ranker knows how often people bought behind a query on training days; empty: nothing is known of that, as in a log
    without hints, where no ranker can be learnt."""

    lists: str = "lists"
    ranker: str = "hint_ranker"
    days: int = 2000
    rows: Mapping[str, str] = field(default_factory=dict)
    serves: Mapping[Form, str] = field(default_factory=dict)
    writer: WriterConfig = field(default_factory=WriterConfig)
    encoder: str | None = None
    encoder_tokens: int = 32
    resamples: int = 1000
    printed: int = 20


def main(spec: StageSpec) -> StageResult:
    """Measure all rows; hand on `model/`."""
    config = resolve_config(spec, Config)
    _require_served(config)
    lists = Examples.open(spec.artifact(config.lists) / "lists")
    days = lists.read(THINK, {"test"}, config.days)
    if not days:
        raise LeftOut("nobody has searched on a test day", where="query_samples", do="wait, or move the cut dates")
    shop, searches = ShopWords.read(spec), lists.searches()
    fill = fill_of(config, shop, searches)
    measures = ListMeasures(
        [one.observed for one in days],
        [one.person.searches for one in days],
        fill.hints,
        Purchases.of(HintRanker.load(spec.artifact(config.ranker) / "model").known if config.ranker else {}),
        partial(_vectors, spec, config),
        config.writer.samples.depth,
    )
    made = rows_of(spec, config, fill, days)
    rows, served = made.hints, made.served
    if len(served) == len(FORMS):
        models = {form: model for form, (model, _) in served.items()}
        writer = HintWriter(models["direct"], models["think"], shop, searches, config.writer)
        package(writer, {form: folder for form, (_, folder) in served.items()}, spec.out_dir / "model")
    # Once for all rows: the encoder is loaded for texts that it does not know.
    _vectors(spec, config, sorted({hint.query for row in rows.values() for own in row for hint in own}))
    values = {row: measures.values(own) for row, own in rows.items()}
    if "direct" in served:
        _print(spec.out_dir / "hints.txt", days, rows[SERVED["direct"]], config.printed)
    lines = _lines(values, measures.names, days, config, spec.seed)
    metrics = {
        **flat(lines),
        **_differences(values, measures.names, days, config, spec.seed),
        **{f"{row}.valid": float(np.mean(own.valid)) for row, own in made.written.items()},
        **{f"{row}.different_queries": float(_different(own)) for row, own in rows.items()},
        "days": float(len(days)),
    }
    return _written(spec, days, values, measures.names, lines, metrics)


def fill_of(config: Config, shop: ShopWords, searches: Sequence[tuple[str, str | None]]) -> Fill:
    """What only counts, of the searches of training days."""
    return Fill(QueryCounts.of(searches, shop.things), HintFilter(config.writer.hints, shop.words))


@dataclass(frozen=True)
class Rows:
    """The hints of each row on each of the days; what each model wrote, by its row; and the model of each form that is
    packaged, with its folder."""

    hints: Mapping[str, Lists]
    written: Mapping[str, WrittenLists]
    served: Mapping[Form, tuple[HintModel, Path]]


def row_names(spec: StageSpec, config: Config) -> tuple[str, ...]:
    """The rows that `rows_of` makes."""
    made = [row for row, stage in config.rows.items() if not spec.left_out(stage)]
    return (*ROWS, COUNTED, *made, *(_shown_as(config, row) for row in made))


def _shown_as(config: Config, row: str) -> str:
    """The name of a model's row with its filter and fill."""
    forms = [form for form, served in config.serves.items() if served == row]
    return SERVED[forms[0]] if forms else f"{row}{SHOWN}"


def rows_of(spec: StageSpec, config: Config, fill: Fill, days: Sequence[Example]) -> Rows:
    """Of what only counts, and of each model that was not left out. DataError for two rows to serve of a form."""
    samples = config.writer.samples
    alone = [fill.counted(one.person, samples.depth) for one in days]
    hints: dict[str, Lists] = {name: [own[name] for own in alone] for name in ROWS}
    hints[COUNTED] = [fill.shown((), one.person, one.told, samples.depth) for one in days]
    written: dict[str, WrittenLists] = {}
    drawn: dict[str, WrittenLists] = {}
    served: dict[Form, tuple[HintModel, Path]] = {}
    for row, stage in config.rows.items():
        if spec.left_out(stage):
            continue
        folder = spec.artifact(stage) / "model"
        model = HintModel.load(folder)
        # A stage that its gate refused hands on the model that it started from: what that one writes is known.
        if (same := _digest(folder)) not in drawn:
            drawn[same] = write_lists(row, model, [one.told for one in days], samples, spec.seed)
        written[row] = found = drawn[same]
        hints[row] = [as_written(own) for own in found.queries]
        form = _form_served(config, row, model)
        hints[_shown_as(config, row)] = [
            fill.shown(own, one.person, one.told, samples.depth) for own, one in zip(found.queries, days, strict=True)
        ]
        if form:
            served[form] = model, folder
    return Rows(hints, written, served)


def _require_served(config: Config) -> None:
    missing = [form for form in FORMS if config.serves.get(form) not in config.rows]
    if missing:
        raise DataError(
            f"there is no row to serve of the form {missing[0]}: {config.serves.get(missing[0])!r}",
            why=f"the rows are {', '.join(config.rows) or '(none)'}",
            do="name a row of each form in `serves` of the stage evaluate",
        )


def _form_served(config: Config, row: str, model: HintModel) -> Form | None:
    """The form that a row is packaged as; None: it is not."""
    form = model.config.form
    if row in config.serves.values() and config.serves[form] != row:
        raise DataError(
            f"the row {row} is of the form {form}, of which another one is served: {config.serves[form]}",
            do="name a row of each form in `serves` of the stage evaluate",
        )
    return form if config.serves[form] == row else None


def _digest(folder: Path) -> str:
    """Of all files of a model: two folders with one digest write the same."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


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
    """What is served minus each other row, paired by day: `query_rec_think.minus.popular.recall@30`, with `.lo` and
    `.hi`."""
    found: dict[str, float] = {}
    pairs = ((served, row) for served in SERVED.values() if served in values for row in values if row != served)
    for (served, row), (place, name) in product(pairs, enumerate(names)):
        own, other = values[served][:, place], values[row][:, place]
        known = ~np.isnan(own) & ~np.isnan(other)
        if known.any():
            users = [one.person.user_id for one, there in zip(days, known, strict=True) if there]
            pair = (own[known][:, None], other[known][:, None])
            (gap,) = paired_difference(*pair, users, seed=seed, resamples=config.resamples)
            key = f"{served}.minus.{row}.{name}"
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
    """What each day adds to each measure. Of a day without a kind nothing is asked by kinds, and of one without a new
    search nothing of new ones: it adds 0 to them, and to what counts such days, over which they are (`OF_SOME`). Null:
    the row has no hint for the day."""
    asked = {
        "unit": [one.person.user_id for one in days],
        "sample": [f"{one.day} {one.request_id}" for one in days],
        "slices": [[]] * len(days),
    }
    by_name = dict(zip(names, values.T, strict=True))
    for name in names:
        if counts := OF_SOME.get(name.partition("@")[0]):
            known = ~np.isnan(by_name[name])
            by_name |= {name: np.where(known, by_name[name], 0.0), counts: known.astype(np.float64)}
    found = []
    for name, own in by_name.items():
        words = {"model": row, "split": _SPLIT, "name": name}
        columns = {**asked, **{key: [word] * len(days) for key, word in words.items()}}
        arrays = {key: pa.array(column, VALUES_SCHEMA.field(key).type) for key, column in columns.items()}
        found.append(pa.table(arrays | {"value": pa.array(own, mask=np.isnan(own))}).select(VALUES_SCHEMA.names))
    return pa.concat_tables(found)


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
    found = embed_texts(texts, kept_vectors(), encoder=encoder, max_tokens=config.encoder_tokens)
    return np.asarray(found, dtype=np.float32)
