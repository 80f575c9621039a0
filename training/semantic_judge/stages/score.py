"""Stage: what the judge says of a night's lists, as the tables `judge_scores`, `judge_checks` and `judge_means`.

First the gold set of the judge in use. Where it does not hold nothing is judged, and where the night's scores look
wrong none is published: `judge_scores` has all submitted rows all the same, as `withheld`, and `judge_checks` says why.
Users are judged shard by shard; killed and resumed, the stage judges the open shard again and no other, and publishes
what an undisturbed run does. Shards that a try came to too late are judged by the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.batch_inference import answered, in_shards
from training.core.environment import state_folder
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, read_query, read_table, resolve_config
from training.semantic_judge.example_tables import item_of
from training.semantic_judge.gold import Bands, GoldSet
from training.semantic_judge.item_statistics import TABLE as STATISTICS
from training.semantic_judge.item_statistics import ItemStatistics
from training.semantic_judge.kept_scores import KeptScores, Keys, hash_of
from training.semantic_judge.night import (
    ALL_ASPECTS,
    DEADLINE,
    KEY,
    LISTED,
    LISTED_COLUMNS,
    NOT_FINITE,
    NOT_IN_CATALOGUE,
    OVER_BUDGET,
    SCORE,
    SCORED_SCHEMA,
    WITHHELD,
    Night,
    as_at_night,
    day_of,
    kept_numbers,
    numbers_of,
    with_allowances,
)
from training.semantic_judge.night_checks import Check, on_gold, on_night, reasons
from training.semantic_judge.night_tables import checks_table, means_table, residuals_of, told_lists
from training.semantic_judge.powered_means import Residuals
from training.semantic_judge.serve import Judge

JUDGE, CHAMPION = "semantic_judge", "champion"
SCORES, CHECKS, MEANS = "judge_scores", "judge_checks", "judge_means"
_ITEM_COLUMNS = {
    **dict.fromkeys(("item_id", "title", "brand", "category", "description", "features"), pa.string()),
    "price": pa.float64(),
}
_PART = "part-0.parquet"
_READ = ("user_id", "item_id", "model_version", "role", SCORE, "failure", *(aspect.name for aspect in ALL_ASPECTS))
_WRITTEN = SCORED_SCHEMA.append(pa.field("reason", pa.string()))


@dataclass(frozen=True)
class Config:
    """`shard_users`: about how many users a shard has, which is what a kill costs at most. After `deadline_minutes` of
    a run, and beyond a `budget` of cases to judge (None: all), what was not said before is published as failed.
    `coverage`: the least share of rows that must be scored. `told`: so many best and worst lists get reasons."""

    shard_users: int = 256
    deadline_minutes: float = 120.0
    budget: int | None = None
    coverage: float = 0.95
    told: int = 5


def main(spec: StageSpec) -> StageResult:
    """Hold the judge to its gold set, judge the shards that are missing, and join all.

    Raises LeftOut where no judge has been promoted, where it has no gold set, and where the night has no lists.
    """
    config, version, began = resolve_config(spec, Config), _champion(spec), time.monotonic()
    asked = read_query(spec, LISTED, LISTED_COLUMNS)
    held = _Held.of(version, spec.seed)
    night = _night(spec, held, asked, lambda: time.monotonic() - began >= config.deadline_minutes * 60)
    files = _judged(spec, config, held, night, asked)
    rows = pa.concat_tables([pq.read_table(file, columns=list(_READ)) for file in files])
    checks = [*held.checks, *(_of_night(rows, night, held.bands, config.coverage) if held.holds else [])]
    withheld = bool(reasons(checks))
    told = {} if withheld else told_lists(night, asked, rows, config.told)
    origin = spec.tables[LISTED].origin
    tables = {
        SCORES: _scores(files, told, _stays(held) if withheld else None),
        CHECKS: [checks_table(checks, version.version, "simulated" if held.gold.simulated else origin, origin)],
        MEANS: [means_table(rows, night.aspects, held.residuals, version.version, withheld=withheld)],
    }
    written = {name: (_written(spec.out_dir, name, parts),) for name, parts in tables.items()}
    metrics = _metrics(rows, checks, files, night)
    if not withheld:
        night.kept.replace(day_of(asked), (kept_numbers(pq.read_table(file), night.aspects) for file in files))
    return StageResult(metrics, written)


@dataclass(frozen=True, eq=False)
class _Held:
    """A judge (`content`: the hash of its folder) as its gold set finds it."""

    version: ModelVersion
    content: str
    judge: Judge
    gold: GoldSet
    bands: Bands
    checks: Sequence[Check]
    residuals: Mapping[str, Residuals]

    @classmethod
    def of(cls, version: ModelVersion, seed: int) -> Self:
        """Read it and hold it to its gold set."""
        folder = Path(version.folder)
        judge, twin = (Judge.load(folder) for _ in range(2))
        gold, bands = GoldSet.load(folder, judge.evidence.catalogue)
        checks = on_gold(gold, bands, judge.score_of, twin.score_of, seed)
        residuals = residuals_of(gold, numbers_of(judge, as_at_night(gold.cases)), judge.aspects)
        return cls(version, hash_of(folder), judge, gold, bands, checks, residuals)

    @property
    def holds(self) -> bool:
        """Whether all of it has passed."""
        return not reasons(self.checks)


def _champion(spec: StageSpec) -> ModelVersion:
    found = [one for one in spec.models.get(JUDGE, ()) if one.role == CHAMPION]
    if not found:
        raise LeftOut("no judge has been promoted yet", do=f"promote a version of {JUDGE}; the next night is scored")
    return found[0]


def _night(spec: StageSpec, held: _Held, asked: pa.Table, late: Callable[[], bool]) -> Night:
    """Of a catalogue no more is read than stands in lists and histories: what is new to the judge must be encoded."""
    met = pa.concat_arrays([pc.list_flatten(asked[name]).combine_chunks() for name in ("listed", "item_ids")]).unique()
    there = read_table(spec, "items", _ITEM_COLUMNS)
    items = [item_of(row) for row in there.filter(pc.is_in(there["item_id"], met)).to_pylist()]
    judge = held.judge.over(items)
    catalogue = judge.evidence.catalogue
    kept = KeptScores(state_folder() / "judge_scores.sqlite", 2 * len(judge.aspects) + 1)
    statistics, keys = ItemStatistics.read(spec, catalogue), Keys(held.content, catalogue.items)
    return Night(judge, held.version.version, len(items), statistics, keys, kept, late)


def _judged(spec: StageSpec, config: Config, held: _Held, night: Night, asked: pa.Table) -> list[Path]:
    """The shards. Where the judge does not hold nothing is spent on it."""
    budget = config.budget if held.holds else 0
    shards = with_allowances(in_shards(asked, "user_id", config.shard_users), budget)
    inputs = [spec.tables[name].files for name in (LISTED, "items", STATISTICS)]
    made_from = [inputs, held.version.version, held.content, budget, config.shard_users]
    _forget_late(spec.out_dir / "shards")
    with Progress(len(asked), "score", "user") as progress:
        return answered(spec.out_dir / "shards", made_from, shards, lambda: night.answer, progress)


def _forget_late(folder: Path) -> None:
    """Remove the shards that an earlier try came to after its deadline: this one has time again."""
    for file in folder.glob(f"*/*/{_PART}"):
        if DEADLINE in pq.read_table(file, columns=["failure"])["failure"].unique().to_pylist():
            file.unlink()


def _of_night(rows: pa.Table, night: Night, bands: Bands, coverage: float) -> list[Check]:
    """The checks of the scores themselves."""
    own = rows.filter(pc.is_valid(rows[SCORE]))
    title = {item.item_id: len(item.title or "") for item in night.judge.evidence.catalogue.items}
    lengths = np.array([title[item] for item in own["item_id"].to_pylist()], dtype=np.int64)
    return on_night(own[SCORE].to_numpy(), lengths, len(rows), bands, coverage)


def _stays(held: _Held) -> pa.Array:
    """The failures that a withheld row may have all the same; a judge that does not hold was asked nothing."""
    return pa.array([NOT_IN_CATALOGUE, *([OVER_BUDGET, DEADLINE, NOT_FINITE] if held.holds else [])])


def _scores(
    files: Sequence[Path], told: Mapping[tuple[str, str, str], str], withheld: pa.Array | None
) -> Iterator[pa.Table]:
    """The shards as they are published: with reasons; or withheld, but for the failures that stay."""
    for file in files:
        rows = pq.read_table(file).select(SCORED_SCHEMA.names)
        if withheld is not None:
            numbers = [field.name for field in SCORED_SCHEMA if pa.types.is_floating(field.type)]
            columns = {name: pa.nulls(len(rows), pa.float64()) for name in numbers}
            columns["failure"] = pc.if_else(pc.is_in(rows["failure"], withheld), rows["failure"], WITHHELD)
            rows = pa.table({name: columns.get(name, rows[name]) for name in rows.column_names})
        keys = zip(*(rows[name].to_pylist() for name in ("user_id", "model_version", "item_id")), strict=True)
        reasons_of = pa.array([told.get(key) for key in keys], pa.string())
        yield rows.append_column("reason", reasons_of).cast(_WRITTEN)


def _written(out: Path, table: str, parts: Iterable[pa.Table]) -> str:
    """All parts as one file; its path below `out`."""
    with new_folder(out / "tables" / table) as scratch:
        first, *others = parts
        with pq.ParquetWriter(scratch / _PART, first.schema) as writer:
            for part in (first, *others):
                writer.write_table(part)
    return f"tables/{table}/{_PART}"


def _metrics(rows: pa.Table, checks: Sequence[Check], files: Sequence[Path], night: Night) -> dict[str, float]:
    """Rows by what became of them, cases that were not judged again, and each check."""
    failed = Counter(rows["failure"].to_pylist())
    scored = failed.pop(None, 0)
    reused = sum(int(night.kept.find(list(dict.fromkeys(_keys(file))))[0].sum()) for file in files)
    counts = {f"failed.{name}": float(count) for name, count in sorted(failed.items())}
    figures = {"submitted": float(len(rows)), "scored": float(scored), "reused": float(reused), **counts}
    return figures | {f"check.{check.name}": check.value for check in checks if np.isfinite(check.value)}


def _keys(file: Path) -> list[bytes]:
    return [key for key in pq.read_table(file, columns=[KEY])[KEY].to_pylist() if key is not None]
