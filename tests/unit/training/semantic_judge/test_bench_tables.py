"""The tables of the large shop are tables that the stages read, with something to learn in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.jobs import load_job, stage_specs
from training.semantic_judge.bench_tables import write_tables
from training.semantic_judge.example_tables import read_examples, read_items, read_pairs

pytestmark = pytest.mark.unit


def test_the_large_shop_is_read_whole_and_is_called_simulated(tmp_path: Path) -> None:
    write_tables(tmp_path, items=900, examples=3600, pairs=150)
    spec, *others = stage_specs(load_job("judge_office"), tmp_path, tmp_path / "out", seed=17)
    assert [one.stage for one in others] == ["evidence", "aggregator", "evaluate"]
    examples = read_examples(spec, read_items(spec))
    pairs = read_pairs(spec, examples)
    assert len(examples.cases.catalogue) == 900 and len(examples) == 3600 and len(pairs) == 150
    assert {spec.tables[name].origin for name in spec.tables} == {"simulated"}
    assert {len(examples.rows_of(part)) > 200 for part in ("train", "valid", "test")} == {True}
    stars = examples.hindsight.rating
    assert (stars[pairs.preferred] == 5).all() and (stars[pairs.other] == 1).all()
    assert np.diff(examples.cases.states.starts).min() == 20 and len(examples.cases.states) == 900
