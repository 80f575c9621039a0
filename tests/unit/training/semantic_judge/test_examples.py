"""Tables read into columns, and the wall between what a judge may see and what only teachers know."""

from __future__ import annotations

import typing
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.unit.training.judge_kit import evidence_of, shop_items, stage_spec, write_shop
from training.core.errors import DataError, LeftOut
from training.semantic_judge import evidence, evidence_judge, judge, serve
from training.semantic_judge.example_tables import (
    EXAMPLES,
    PAIRS,
    found_by_key,
    keys_of,
    read_examples,
    read_items,
    read_pairs,
)
from training.semantic_judge.examples import Examples, Hindsight, rows_to_learn

pytestmark = pytest.mark.unit


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    spec = stage_spec(tmp_path, "teach", write_shop(tmp_path, context=True))
    examples = read_examples(spec, read_items(spec))
    rows = pq.read_table(spec.tables[EXAMPLES].files[0]).to_pylist()
    assert len(examples) == len(rows)
    for place in (0, 7, len(rows) - 1):
        row, user = rows[place], examples.cases.user(place)
        assert (user.user_id, user.as_of, user.context) == (row["user_id"], row["as_of"].date(), row["context"])
        assert (list(user.history), list(user.ratings)) == (row["history_item_ids"], row["history_ratings"])
        assert examples.cases.judged(place).item_id == row["item_id"]
        later = examples.hindsight.later[slice(*examples.hindsight.starts[place : place + 2])]
        assert [examples.cases.catalogue.items[item].item_id for item in later] == row["later_item_ids"]
        np.testing.assert_equal(examples.hindsight.rating[place], np.float32(row["rating"] or np.nan))
    assert len(examples.cases.states) < len(rows), "a state that several examples share is held once"


def test_an_example_is_found_by_its_key_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    spec = stage_spec(tmp_path, "teach", write_shop(tmp_path))
    examples = read_examples(spec, read_items(spec))
    rows = np.array([3, 0, len(examples) - 1])
    np.testing.assert_array_equal(found_by_key(examples, keys_of(examples, rows)), rows)
    days = examples.cases.states.days[examples.cases.state[:3]]
    assert examples.find(["nobody", "u0", "u0"], days, ["i0", "no item", "i0"])[:2].tolist() == [-1, -1]


def test_items_out_of_the_catalogue_are_passed_over(tmp_path: Path) -> None:
    tables = write_shop(tmp_path)
    items = pq.read_table(tables["items"].files[0])
    pq.write_table(items.filter(pc.not_equal(items["item_id"], "i3")), tables["items"].files[0])
    spec = stage_spec(tmp_path, "teach", tables)
    examples = read_examples(spec, read_items(spec))
    told = pq.read_table(tables[EXAMPLES].files[0], columns=["item_id"])["item_id"].to_pylist()
    assert len(examples) == sum(item != "i3" for item in told) < len(told)
    pairs = read_pairs(spec, examples)
    ids = [examples.cases.judged(row).item_id for row in (*pairs.preferred.tolist(), *pairs.other.tolist())]
    assert ids and "i3" not in ids


@pytest.mark.parametrize(
    ("column", "kind"), [("split_time", DataError), ("history_ratings", DataError), ("user_id", DataError)]
)
def test_rows_that_break_the_contract_are_refused(tmp_path: Path, column: str, kind: type[Exception]) -> None:
    tables = write_shop(tmp_path)
    rows = pq.read_table(tables[EXAMPLES].files[0])
    bad = {"split_time": "late", "history_ratings": [1.0], "user_id": None}[column]
    listed = rows.to_pylist()
    listed[5][column] = bad
    pq.write_table(rows.from_pylist(listed, schema=rows.schema), tables[EXAMPLES].files[0])
    spec = stage_spec(tmp_path, "teach", tables)
    with pytest.raises(kind):
        read_examples(spec, read_items(spec))


def test_without_training_examples_there_is_nothing_to_teach(tmp_path: Path) -> None:
    tables = write_shop(tmp_path)
    rows = pq.read_table(tables[EXAMPLES].files[0])
    pq.write_table(rows.filter(pc.not_equal(rows["split_time"], "train")), tables[EXAMPLES].files[0])
    spec = stage_spec(tmp_path, "teach", tables)
    with pytest.raises(LeftOut):
        read_examples(spec, read_items(spec))


def test_no_training_row_holds_what_a_later_pair_asks_about(tmp_path: Path) -> None:
    tables = write_shop(tmp_path)
    pairs = pq.read_table(tables[PAIRS].files[0]).to_pylist()
    listed = pq.read_table(tables[EXAMPLES].files[0])
    held = next(pair for pair in pairs if pair["split_time"] == "test")
    rows = listed.to_pylist()
    early = {
        **next(row for row in rows if row["user_id"] == held["user_id"]),
        "item_id": held["preferred_item_id"],
        "split_time": "train",
        "as_of": rows[0]["as_of"].replace(year=2025),
    }
    pq.write_table(listed.from_pylist([*rows, early], schema=listed.schema), tables[EXAMPLES].files[0])
    spec = stage_spec(tmp_path, "teach", tables)
    examples = read_examples(spec, read_items(spec))
    learn = rows_to_learn(examples, read_pairs(spec, examples), "train")
    assert len(examples) - 1 in examples.rows_of("train") and len(examples) - 1 not in learn
    assert len(learn) == len(examples.rows_of("train")) - 1


@pytest.mark.parametrize("module", [evidence, evidence_judge, judge, serve])
def test_no_judge_can_be_given_hindsight(module: ModuleType) -> None:
    """Nothing that counts or judges takes or holds it; the teachers do."""
    assert not {Examples, Hindsight} & {value for value in vars(module).values() if isinstance(value, type)}
    assert "Hindsight" not in Path(str(module.__file__)).read_text()


def test_the_wall_can_be_seen() -> None:
    from training.semantic_judge.teachers import rules

    assert typing.get_type_hints(rules.RuleTeacher.teach)["examples"] is Examples


def test_another_future_changes_no_evidence(tmp_path: Path) -> None:
    tables = write_shop(tmp_path)
    spec, found = stage_spec(tmp_path, "teach", tables), []
    for change in (False, True):
        if change:
            rows = pq.read_table(tables[EXAMPLES].files[0]).to_pylist()
            other = [{**row, "later_item_ids": ["i1"], "rating": 3.0, "kinds": ["shown"]} for row in rows]
            schema = pq.read_schema(tables[EXAMPLES].files[0])
            pq.write_table(
                pq.read_table(tables[EXAMPLES].files[0]).from_pylist(other, schema=schema), tables[EXAMPLES].files[0]
            )
        examples = read_examples(spec, read_items(spec))
        found.append(evidence_of(shop_items()).numbers(examples.cases))
    np.testing.assert_array_equal(found[0], found[1])
