"""What is said of all that was shown, beside what the evaluation says of the same examples."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.judge_kit import stage_spec, write_shop
from tests.unit.training.semantic_judge import test_stages
from training.core.errors import DataError
from training.core.stage import TableRef
from training.semantic_judge.example_tables import EVENTS, EXAMPLES, MEAN_RATING, PAIRS, TIME
from training.semantic_judge.shown import scores_of
from training.semantic_judge.stages.evaluate import EVIDENCE, JUDGE

pytestmark = pytest.mark.unit
words = test_stages.words


def one_statistic_an_item(folder: Path, **shop: Any) -> dict[str, TableRef]:
    """The shop, in which others make the same of an item on each day, as the feature store would say."""
    tables = write_shop(folder, **shop)
    rows = pq.read_table(file := tables[EXAMPLES].files[0])
    of_item = [{**row, MEAN_RATING: 3.0 + int(row["item_id"][1:]) % 3, EVENTS: 2} for row in rows.to_pylist()]
    pq.write_table(pa.Table.from_pylist(of_item, rows.schema), file)
    return tables


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, and in `shown/` the examples of its test part as if each day's had been one list."""
    monkeypatch.setattr(test_stages, "write_shop", one_statistic_an_item)
    test_stages.run(tmp_path)
    tables = {name: TableRef((str(tmp_path / f"{name}.parquet"),)) for name in (EXAMPLES, PAIRS)}
    spec = stage_spec(tmp_path, "evaluate", tables, {name: tmp_path / name for name in ("teach", "evidence")})
    (tmp_path / "evaluate" / "spec.json").write_text(json.dumps(asdict(spec)))
    rows = pq.read_table(tables[EXAMPLES].files[0]).to_pylist()
    write(tmp_path, [row for row in rows if row["split_time"] == "test"])
    return tmp_path


def write(folder: Path, examples: list[dict[str, Any]]) -> None:
    """As lists; the statistics of each item are those that an example has."""
    shown = [
        {
            "request_id": f"{row['user_id']} {row['as_of'].day}",
            "position": place,
            "user_id": row["user_id"],
            "item_id": row["item_id"],
            "exposure_time": row["as_of"] + timedelta(hours=9),
        }
        for place, row in enumerate(examples)
    ]
    (folder / "shown").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(shown), folder / "shown" / "exposures.parquet")
    statistics = pa.table(
        {
            "item_id": pa.array([row["item_id"] for row in examples], pa.string()),
            "available_at": pa.array([row["as_of"] for row in examples], TIME),
            "mean_rating_365d": pa.array([row[MEAN_RATING] for row in examples], pa.float64()),
            "events_365d": pa.array([row[EVENTS] for row in examples], pa.int64()),
        }
    )
    pq.write_table(statistics, folder / "shown" / "item_stats.parquet")


def test_a_pair_is_in_order_where_the_evaluation_says_so(judged: Path) -> None:
    told = scores_of(judged, judged / "shown", judged / "scratch")
    rows = told.scores.to_pylist()
    assert told.shown == len(rows)
    by_key = {(row["request_id"], row["item_id"]): row for row in rows}
    values = pq.read_table(judged / "evaluate" / "tables" / "eval_values" / "part-0.parquet").to_pylist()
    compared = 0
    for value in values:
        row = EVIDENCE if value["model"] == JUDGE else value["model"]
        if value["name"] != "pair_accuracy" or row not in (EVIDENCE, "popularity", "item_mean", "nearness"):
            continue
        day, preferred, other = value["sample"].split()
        request = f"{value['unit']} {int(day[-2:])}"
        one, two = (by_key[request, item][row] for item in (preferred, other))
        assert value["value"] == (np.sign(one - two) + 1) / 2
        compared += 1
    assert compared > 100


def test_what_nothing_is_known_of_is_left_out_and_counted(judged: Path) -> None:
    told = scores_of(judged, judged / "shown", judged / "scratch")
    place = {"request_id": "new", "position": 1, "exposure_time": datetime(2026, 1, 9, 9, tzinfo=UTC)}
    shown = pq.read_table(judged / "shown" / "exposures.parquet")
    known = shown["user_id"][0].as_py()
    strangers = [{"user_id": "nobody", "item_id": "i1"}, {"user_id": known, "item_id": "no item"}]
    more = pa.Table.from_pylist([{**place, **one} for one in strangers], shown.schema)
    pq.write_table(pa.concat_tables([shown, more]), judged / "shown" / "exposures.parquet")
    again = scores_of(judged, judged / "shown", judged / "scratch")
    assert again.scores.equals(told.scores) and again.shown == told.shown + 2

    pq.write_table(more, judged / "shown" / "exposures.parquet")
    with pytest.raises(DataError, match="nobody who was shown anything"):
        scores_of(judged, judged / "shown", judged / "scratch")
    with pytest.raises(DataError, match="the run has no evaluation"):
        scores_of(judged / "shown", judged / "shown", judged / "scratch")
