"""What the rows of a run would show: a policy table for each, for everybody of the test part."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.recommender_kit import ITEMS, package_recommender
from tests.unit.training.sample_kit import write_rows
from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef
from training.generative_rec.lists import write_lists
from training.generative_rec.serve import load

pytestmark = pytest.mark.unit
HISTORIES = {"ann": ["i1", "i2", "i3"], "bob": ["i9", "i8"]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two rows with other weights, whose evaluation is done."""
    run, rows = tmp_path / "run", []
    for row, seed in (("business", 1), ("a2po", 2)):
        package_recommender(tmp_path / row, seed)
        shutil.copytree(tmp_path / row / "trained", run / row / "model")
        shutil.copytree(tmp_path / row / "codes", run / "codes", dirs_exist_ok=True)
    for user, items in (*HISTORIES.items(), ("cid", ["i4"])):
        for place, item in enumerate(items):
            day = date(2018, 1, 1) + timedelta(days=place)
            part = "test" if user in HISTORIES and place else "train"
            rows.append((user, day, datetime(day.year, day.month, day.day, tzinfo=UTC), item, items[:place], part))
    samples = write_rows(tmp_path / "samples.parquet", rows)
    (run / "evaluate").mkdir()
    spec = StageSpec(
        "generative_rec",
        "evaluate",
        str(run / "evaluate"),
        1,
        tables={"next_item_training_set": TableRef((str(samples),), origin="simulated")},
        artifacts={name: str(run / name) for name in ("business", "a2po", "codes")},
        config={"models": {"business": "codes", "a2po": "codes"}, "serving": {"history": 5, "beams": 20}},
    )
    (run / "evaluate" / "spec.json").write_text(json.dumps(asdict(spec)))
    return run


def test_each_row_has_a_list_for_everybody_of_the_test_part_after_what_they_did_there(
    run: Path, tmp_path: Path
) -> None:
    write_lists(run, ["business", "a2po"], 4, tmp_path / "lists")
    found = {row: pq.read_table(tmp_path / "lists" / f"{row}.parquet").to_pylist() for row in ("business", "a2po")}
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["a2po.parquet", "business.parquet"]
    for row, lines in found.items():
        assert {line["model_version"] for line in lines} == {row}
        expected = load(tmp_path / row / "model").recommend(list(HISTORIES.values()), 4, users=list(HISTORIES))
        for user, ranking in zip(HISTORIES, expected, strict=True):
            own = [(line["rank"], line["item_id"]) for line in lines if line["user_id"] == user]
            assert own == list(enumerate((item for item, _ in ranking), start=1))
        assert len(lines) == 4 * len(HISTORIES) and {line["item_id"] for line in lines} <= set(ITEMS)
    assert [line["item_id"] for line in found["business"]] != [line["item_id"] for line in found["a2po"]]


def test_a_row_that_was_not_trained_and_a_run_without_evaluation_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)trained no gdpo.*business, a2po"):
        write_lists(run, ["gdpo", "a2po"], 4, tmp_path / "lists")
    with pytest.raises(DataError, match="no evaluation"):
        write_lists(tmp_path, ["a2po"], 4, tmp_path / "lists")
    assert not (tmp_path / "lists").exists()
