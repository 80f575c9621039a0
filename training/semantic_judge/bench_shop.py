"""A simulated shop for the benchmark of the nightly scoring: a packaged judge, and a night of lists as files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.files import write_json
from training.core.stage import StageSpec, TableRef
from training.semantic_judge.aspects import aspects
from training.semantic_judge.encoder import EncoderConfig
from training.semantic_judge.evidence import NAMES, Evidence
from training.semantic_judge.evidence_judge import EvidenceJudge, EvidenceJudgeConfig
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Floats, Item, UserState
from training.semantic_judge.gold import GoldConfig, GoldSet
from training.semantic_judge.item_statistics import TABLE
from training.semantic_judge.night import LISTED, LISTED_COLUMNS
from training.semantic_judge.serve import Judge, Learnt, package

_ITEMS, _WIDTH, _HISTORY, _LEARNT, _GOLD = 20_000, 384, 20, 20_000, 2_000
_DAY = date(2026, 1, 20)


def night(folder: Path, users: int, top: int, preset: EvidenceJudgeConfig) -> StageSpec:
    """Spec of a night of `users` x `top` for one version; 20,000 items with vectors as wide as MiniLM's, histories of
    20 events, and a judge of the preset's sizes that has learnt 20,000 labels."""
    rng = np.random.default_rng(17)
    words = rng.choice(["pen", "desk", "lamp", "paper", "ink", "steel", "oak", "blue"], (_ITEMS, 8))
    titles = [f"{' '.join(row)} {place}" for place, row in enumerate(words.tolist())]
    items = [
        Item(
            f"i{n}",
            title,
            f"brand {n % 300}",
            f"kind {n % 40}",
            1.0 + n % 90,
            f"{title}. brand {n % 300}. kind {n % 40}",
        )
        for n, title in enumerate(titles)
    ]
    evidence = Evidence.of(Catalogue(items), [], _encode, 17)
    judge = _judge(evidence, preset, rng)
    package(evidence, judge, EncoderConfig(), None, Learnt(_DAY.isoformat(), _HISTORY), folder / "judge")
    _freeze(folder / "judge", rng)
    tables = {
        LISTED: _listed(users, top, rng),
        "items": _catalogue(items),
        TABLE: _statistics(rng),
    }
    named = dict[str, TableRef]()
    for name, rows in tables.items():
        pq.write_table(rows, folder / f"{name}.parquet")
        named[name] = TableRef((str(folder / f"{name}.parquet"),))
    models = {"semantic_judge": (ModelVersion("1", "champion", str(folder / "judge")),)}
    return StageSpec("semantic_judge", "score", str(folder / "out"), 17, named, {}, {}, None, models)


def _encode(texts: Sequence[str]) -> Floats:
    """Texts of a kind lie near each other."""
    rng = np.random.default_rng(len(texts))
    centres = np.random.default_rng(1).normal(size=(41, _WIDTH))
    kinds = np.array([int(text.rpartition("kind ")[2] or 40) for text in texts])
    found = centres[kinds] + rng.normal(size=(len(texts), _WIDTH))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def _cases(evidence: Evidence, size: int, rng: np.random.Generator) -> Cases:
    users = [
        UserState(
            f"u{n}", _DAY, tuple(f"i{i}" for i in rng.integers(0, _ITEMS, _HISTORY)), (5.0, 1.0) * (_HISTORY // 2)
        )
        for n in range(size // 2)
    ]
    asked = [Candidate(f"i{n}", 3.0 + n % 3, 1.0 + n % 9) for n in rng.integers(0, _ITEMS, size).tolist()]
    return Cases.of(evidence.catalogue, [user for user in users for _ in range(2)], asked)


def _judge(evidence: Evidence, config: EvidenceJudgeConfig, rng: np.random.Generator) -> EvidenceJudge:
    scored = aspects(False)
    numbers = evidence.numbers(_cases(evidence, _LEARNT, rng))
    signal = np.nan_to_num(numbers[:, [NAMES.index(name) for name in ("near.mean", "item.rating", "price.beside")]])
    ranks = (signal + 0.3 * signal.std(axis=0) * rng.normal(size=signal.shape)).argsort(axis=0).argsort(axis=0)
    sizes = np.array([len(aspect.values) for aspect in scored])
    levels = (ranks * sizes // len(numbers)).astype(np.int8)
    parts = np.arange(len(numbers) * 4 // 5), np.arange(len(numbers) * 4 // 5, len(numbers))
    return EvidenceJudge.fit(evidence, scored, numbers, levels, parts, config, 17)


def _freeze(folder: Path, rng: np.random.Generator) -> None:
    """A gold set that the judge agrees with in four of five pairs: of the others the outcome is turned."""
    judge = Judge.load(folder)
    cases = _cases(judge.evidence, _GOLD, rng)
    said = judge.scores_of(cases)
    one, two = np.arange(0, _GOLD, 2), np.arange(1, _GOLD, 2)
    first = (said.score[one] > said.score[two]) ^ (rng.random(_GOLD // 2) < 0.2)
    preferred, other = np.where(first, one, two), np.where(first, two, one)
    levels = np.stack([np.zeros(_GOLD)] * 3, axis=1).astype(np.int8)
    gold = GoldSet(cases, levels, np.arange(_GOLD), preferred, other, np.array(["rating"] * (_GOLD // 2)))
    gold.save(folder, gold.bands(judge.score_of, judge.score_of, GoldConfig(), 17))


def _listed(users: int, top: int, rng: np.random.Generator) -> pa.Table:
    histories = rng.integers(0, _ITEMS, (users, _HISTORY)).tolist()
    rows = [
        {
            "user_id": f"u{n}",
            "as_of": _DAY + timedelta(days=1),
            "profile": None,
            "item_ids": [f"i{i}" for i in histories[n]],
            "ratings": [float(1 + i % 5) for i in histories[n]],
            "listed": [f"i{i}" for i in rng.choice(_ITEMS, top, replace=False).tolist()],
            "versions": ["1"] * top,
            "roles": ["champion"] * top,
            "ranks": list(range(1, top + 1)),
        }
        for n in range(users)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(dict(LISTED_COLUMNS)))


def _catalogue(items: Sequence[Item]) -> pa.Table:
    nothing = pa.nulls(len(items), pa.string())
    columns = {
        name: [getattr(item, name) for item in items] for name in ("item_id", "title", "brand", "category", "price")
    }
    return pa.table({**columns, "description": nothing, "features": nothing})


def _statistics(rng: np.random.Generator) -> pa.Table:
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(_ITEMS)],
            "available_at": pa.array([datetime(2026, 1, 10, tzinfo=UTC)] * _ITEMS, pa.timestamp("us", "UTC")),
            "mean_rating_365d": rng.uniform(1, 5, _ITEMS),
            "events_365d": rng.integers(1, 99, _ITEMS),
        }
    )


def written(spec: StageSpec) -> Path:
    """The spec as the file that `python -m training` is given."""
    from dataclasses import asdict

    path = spec.out_dir / "spec.json"
    write_json(path, asdict(spec))
    return path
