"""A ranker with what the feature store says: learnt with, evaluated with, packaged with, and without it some day."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.told_shop_kit import COLUMN, HALVES, LEARNER, catalogue, inside, visits
from tests.unit.training.sample_kit import write_rows
from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef, run_stage
from training.next_item.recommender import ListRequest
from training.ranker.bundle import Bundle
from training.ranker.serve import RankerRow, load
from training.ranker.stages import evaluate, ranker


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TableRef]:
    folder = tmp_path_factory.mktemp("shop")
    found = list(visits())
    times = [datetime(one.day.year, one.day.month, one.day.day, tzinfo=UTC) for one in found]
    rows = [(one.user, one.day, time, one.item, one.history, one.part) for one, time in zip(found, times, strict=True)]
    numbers = {COLUMN: [one.told for one in found], "item_daily__events_30d": [1] * len(found)}
    write_rows(folder / "samples.parquet", rows, **numbers)
    write_rows(folder / "without.parquet", rows)
    schema = pa.schema([(name, pa.float64() if name == "price" else pa.string()) for name in catalogue()[0]])
    pq.write_table(pa.Table.from_pylist(catalogue(), schema=schema), folder / "items.parquet")
    files = {"next_item_training_set": "samples.parquet", "items": "items.parquet", "without": "without.parquet"}
    return {name: TableRef((str(folder / file),)) for name, file in files.items()}


def trained(folder: Path, tables: dict[str, TableRef], *features: str) -> Path:
    config = {**LEARNER, "store_features": list(features)}
    spec = StageSpec("ranker", "ranker", str(folder / "ranker"), 5, tables, config=config)
    run_stage(spec, ranker.main)
    return spec.out_dir / "model"


def measured(folder: Path, trained_in: Path, tables: dict[str, TableRef]) -> dict[str, float]:
    spec = StageSpec(
        "ranker", "evaluate", str(folder), 5, tables, {"ranker": str(trained_in)}, {"resamples": 20, "depth": 12}
    )
    run_stage(spec, evaluate.main)
    found: dict[str, float] = json.loads((folder / "result.json").read_text())["metrics"]
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tables: dict[str, TableRef]) -> Path:
    return trained(tmp_path_factory.mktemp("with"), tables, COLUMN)


def test_where_the_store_alone_knows_what_comes_next_the_ranker_with_it_is_far_better(
    tmp_path: Path, tables: dict[str, TableRef], model: Path
) -> None:
    plain = trained(tmp_path, tables)
    told = measured(tmp_path / "told", model.parent, tables)
    alone = measured(tmp_path / "alone", plain.parent, tables)
    assert told["ranker.recall@5"] > 0.7 > 0.6 > alone["ranker.recall@5"]  # 5 of 6, and 5 of 12, by chance
    assert max(value for name, value in told.items() if name.endswith("recall@5") and name != "ranker.recall@5") < 0.6
    assert Bundle.load(model).store_features == (COLUMN,) and Bundle.load(plain).store_features == ()


def test_it_answers_by_the_column_after_saving_and_the_store_stands_among_the_reasons(model: Path) -> None:
    row = load(model)
    assert isinstance(row, RankerRow)
    past = ("i03", "i09", "i01", "i07")
    asked = [ListRequest(past, None, frozenset(), {COLUMN: float(number)}) for number in HALVES]
    lists = row.explained(asked, 6)
    assert min(inside({one.item for one in line}, n) for line, n in zip(lists, HALVES, strict=True)) >= 5
    assert all(any(reason.name == "store" for one in line for reason in one.reasons) for line in lists)
    cheap, dear = (row.chances(asked, [sorted(half)] * 2) for half in HALVES.values())
    assert cheap[0].mean() > 3 * dear[0].mean() and dear[1].mean() > 3 * cheap[1].mean()


def test_the_folder_says_what_it_takes_and_a_frame_may_have_it_or_not(model: Path) -> None:
    inputs = json.loads((model / "signature.json").read_text())["inputs"]
    assert {"name": COLUMN, "type": "double", "required": False} in inputs
    frame = pd.DataFrame({"history": [[], [], []], COLUMN: [2.0, 30.0, np.nan]})
    lists = load(model).predict(frame, {"k": 6})["items"]
    assert min(inside(set(items), n) for items, n in zip(lists[:2], HALVES, strict=True)) >= 5
    assert load(model).predict(frame[["history"]], {"k": 6})["items"].iloc[0] == lists.iloc[2]


def test_a_table_without_the_column_is_measured_with_nothing_known_and_says_so(
    tmp_path: Path, tables: dict[str, TableRef], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(tmp_path / "gone", model.parent, {**tables, "next_item_training_set": tables["without"]})
    assert f"no longer has {COLUMN}, which the ranker has learnt with" in capsys.readouterr().err
    assert 0.2 < found["ranker.recall@5"] < 0.6


def test_a_column_of_the_item_is_refused_before_anything_is_fitted(tmp_path: Path, tables: dict[str, TableRef]) -> None:
    with pytest.raises(DataError, match="a feature of the item, not of the user"):
        trained(tmp_path, tables, COLUMN, "item_daily__events_30d")
    assert not (tmp_path / "ranker" / "full").exists()


def test_a_bundle_of_before_there_were_such_features_is_one_without_any(
    tmp_path: Path, tables: dict[str, TableRef]
) -> None:
    plain: dict[str, Any] = json.loads((trained(tmp_path, tables) / "ranker.json").read_text())
    assert not any(name.startswith("store.") for name in plain["features"])
    row = load(tmp_path / "ranker" / "model")
    asked = [ListRequest((), None, frozenset(), told) for told in ({}, {COLUMN: 2.0})]
    first, second = row.answer(asked, 6, None)
    assert first == second, "what the store has and the model does not take is read over"
