"""A small shop for the judge's tests: its tables as their contracts have them, and an encoder that counts words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.stage import StageSpec, TableRef
from training.next_item.public_sets import ITEMS_SCHEMA
from training.semantic_judge.aspects import aspects
from training.semantic_judge.encoder import EncoderConfig
from training.semantic_judge.evidence import PLACE, Evidence
from training.semantic_judge.evidence_judge import EvidenceJudge, EvidenceJudgeConfig
from training.semantic_judge.example_tables import (
    EVENTS,
    EXAMPLE_COLUMNS,
    EXAMPLES,
    MEAN_RATING,
    PAIR_COLUMNS,
    PAIRS,
    PROFILE_TEXT,
)
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Floats, Item, UserState
from training.semantic_judge.serve import Learnt, package

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("pen", "desk", "lamp", "paper")


def encode(texts: Sequence[str]) -> Floats:
    """Words as directions of 32, of length 1."""
    found = np.zeros((len(texts), 32), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            found[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % 32] += 1.0
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def shop_items(count: int = 40) -> list[Item]:
    """Four kinds, three brands, prices that differ."""
    return [
        Item(
            f"i{n}",
            f"{KINDS[n % 4]} number{n}",
            ("acme", "bolt", None)[n % 3],
            KINDS[n % 4],
            float(1 + n % 7),
            f"{KINDS[n % 4]} number{n}. {('acme', 'bolt', '')[n % 3]}",
        )
        for n in range(count)
    ]


def evidence_of(items: Sequence[Item], contexts: Sequence[str | None] = ()) -> Evidence:
    return Evidence.of(Catalogue(list(items)), contexts, encode, seed=1)


def cases_of(evidence: Evidence, asked: Sequence[tuple[UserState, Candidate]]) -> Cases:
    return Cases.of(evidence.catalogue, [user for user, _ in asked], [item for _, item in asked])


def write_shop(folder: Path, *, users: int = 60, context: bool = False, seed: int = 0) -> dict[str, TableRef]:
    """Users like two of four kinds: they give these 5 stars and the others 1. A third of the users each in train, valid
    and test; each user's days are examples with what was taken and one item drawn."""
    rng, items = np.random.default_rng(seed), shop_items()
    examples, pairs = list[dict[str, Any]](), list[dict[str, Any]]()
    for number in range(users):
        user, part = f"u{number}", ("train", "valid", "test")[number % 3]
        liked = {KINDS[number % 4], KINDS[(number + 1) % 4]}
        takes = [items[n] for n in rng.permutation(len(items))[:12]]
        stars = [5.0 if item.category in liked else 1.0 for item in takes]
        for day in range(4, 12):
            as_of = FIRST + timedelta(days=day)
            common = {
                "user_id": user,
                "as_of": as_of,
                "history_item_ids": [item.item_id for item in takes[:day]],
                "history_ratings": stars[:day],
                "context": f"{takes[day].category} cheap" if context else None,
                "split_time": part,
                PROFILE_TEXT: None,
            }
            later = [item.item_id for item in takes[day + 1 :]]
            drawn = items[int(rng.integers(len(items)))]
            for item, kind, rating in ((takes[day], "taken", stars[day]), (drawn, "drawn", None)):
                if kind == "drawn" and item in takes:
                    continue
                examples.append(
                    {
                        **common,
                        "item_id": item.item_id,
                        "kinds": [kind],
                        "rating": rating,
                        "later_item_ids": later,
                        MEAN_RATING: 3.0 + int(item.item_id[1:]) % 3,
                        EVENTS: 1 + int(item.item_id[1:]) % 5,
                    }
                )
            if day < 11 and stars[day] != stars[day + 1]:
                best, worst = sorted((day, day + 1), key=lambda place: -stars[place])
                examples.append(
                    {
                        **common,
                        "item_id": takes[day + 1].item_id,
                        "kinds": ["taken"],
                        "rating": stars[day + 1],
                        "later_item_ids": [takes[day].item_id, *later[1:]],
                        MEAN_RATING: 4.0,
                        EVENTS: 2,
                    }
                )
                pairs.append(
                    {
                        "user_id": user,
                        "as_of": as_of,
                        "preferred_item_id": takes[best].item_id,
                        "other_item_id": takes[worst].item_id,
                        "source": "rating",
                        "split_time": part,
                    }
                )
    rows = [{**dict.fromkeys(ITEMS_SCHEMA.names), **_row(item)} for item in items]
    return {
        "items": _written(folder, "items", rows, ITEMS_SCHEMA),
        EXAMPLES: _written(folder, EXAMPLES, examples, pa.schema(dict(EXAMPLE_COLUMNS))),
        PAIRS: _written(folder, PAIRS, pairs, pa.schema(dict(PAIR_COLUMNS))),
    }


def _row(item: Item) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in ("item_id", "title", "brand", "category", "price")}
    return {**values, "source": "shop"}


def _written(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> TableRef:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / f"{name}.parquet")
    return TableRef((str(folder / f"{name}.parquet"),), 1)


def stage_spec(
    folder: Path,
    stage: str,
    tables: Mapping[str, TableRef],
    artifacts: Mapping[str, Path] | None = None,
    config: Mapping[str, Any] | None = None,
) -> StageSpec:
    """Of a stage that writes below `folder`."""
    out = folder / stage
    out.mkdir(parents=True, exist_ok=True)
    named = {name: str(path) for name, path in (artifacts or {}).items()}
    return StageSpec("semantic_judge", stage, str(out), 17, dict(tables), named, json.loads(json.dumps(config or {})))


def packaged_judge(folder: Path, items: Sequence[str], until: str = "2024-01-03") -> ModelVersion:
    """A judge in `folder` that likes what is near to the history, of made-up levels, as a version."""
    evidence = evidence_of(
        [Item(item, f"{KINDS[n % 4]} {item}", None, KINDS[n % 4], 1.0, KINDS[n % 4]) for n, item in enumerate(items)]
    )
    rng, day = np.random.default_rng(0), FIRST.date()
    users = [UserState(f"u{n}", day, tuple(rng.choice(items, 3).tolist()), (5.0,) * 3) for n in range(120)]
    cases = cases_of(evidence, [(user, Candidate(str(rng.choice(items)), 4.0, 3)) for user in users])
    numbers = evidence.numbers(cases)
    near = np.argsort(np.argsort(numbers[:, PLACE["near.mean"]])) / len(users)
    scored = aspects(False)
    levels = np.stack([(near * len(one.values)).astype(np.int8) for one in scored], axis=1)
    config = EvidenceJudgeConfig(rounds=10, patience=5, regularisation=(0.1,), least=10, min_data_in_leaf=5)
    parts = np.arange(80), np.arange(80, 120)
    judge = EvidenceJudge.fit(evidence, scored, numbers, levels, parts, config, 1)
    package(evidence, judge, EncoderConfig(), None, Learnt(until, 20), folder)
    return ModelVersion("1", "challenger", str(folder))
