"""The judge's stages on shops that have too little, or much of the same: figures, or left out with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training import judge_kit
from tests.unit.training.judge_kit import stage_spec, write_shop
from training.core.errors import DataError
from training.core.stage import TableRef, run_stage
from training.semantic_judge import encoder
from training.semantic_judge.example_tables import EVENTS, EXAMPLES, MEAN_RATING, PAIRS
from training.semantic_judge.stages import evaluate, evidence, teach
from training.semantic_judge.stages.evaluate import JUDGE

pytestmark = pytest.mark.unit
Rows = list[dict[str, Any]]
Change = Callable[[Rows], Rows]
QUICK: dict[str, dict[str, Any]] = {
    "evidence": {"judge": {"rounds": 10, "patience": 5, "regularisation": [0.1]}},
    "evaluate": {"resamples": 20},
}


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))


def run(folder: Path, users: int = 90, **changes: Change) -> dict[str, str]:
    """Why each stage was left out, empty where it was not; `changes`: the rows of a table as the shop has them."""
    tables = write_shop(folder, users=users)
    for name, change in changes.items():
        rewrite(tables[name], change)
    made, reasons = dict[str, Path](), dict[str, str]()
    for stage in (teach, evidence, evaluate):
        name = stage.__name__.rpartition(".")[2]
        spec = stage_spec(folder, name, tables, made, QUICK.get(name))
        run_stage(spec, stage.main)
        reasons[name] = spec_left_out(folder / name)
        made[name] = folder / name
    return reasons


def rewrite(table: TableRef, change: Change) -> None:
    rows = pq.read_table(table.files[0])
    pq.write_table(pa.Table.from_pylist(change(rows.to_pylist()), rows.schema), table.files[0])


def spec_left_out(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["left_out"])


def metrics(folder: Path, stage: str) -> dict[str, float]:
    return dict(json.loads((folder / stage / "result.json").read_text())["metrics"])


def nothing(rows: Rows) -> Rows:
    return []


def of_one_item(rows: Rows) -> Rows:
    """All that anybody takes, has taken and will take is one item, whose text is all that there is."""
    once = {(row["user_id"], row["as_of"]): row for row in rows}.values()
    taken = [{**row, "item_id": "i0", "kinds": ["taken"], "later_item_ids": [], "rating": 5.0} for row in once]
    return [{**row, "history_item_ids": ["i0"] * len(row["history_item_ids"])} for row in taken]


NEEDS = "it needs teach, which was left out"


def test_a_shop_without_pairs_has_labels_and_a_judge_that_nothing_measures(tmp_path: Path) -> None:
    assert run(tmp_path, **{PAIRS: nothing}) == {"teach": "", "evidence": "", "evaluate": "there is no test pair"}
    assert (tmp_path / "evidence" / "judge").is_dir() and not (tmp_path / "evaluate" / "model").exists()


def test_a_handful_of_users_is_too_little_for_a_judge(tmp_path: Path) -> None:
    reasons = run(tmp_path, users=3)
    assert reasons["teach"] == "" and "too few labels for a judge" in reasons["evidence"]
    assert reasons["evaluate"] == "it needs evidence, which was left out"


def test_a_shop_of_one_item_has_nothing_to_tell_apart(tmp_path: Path) -> None:
    reasons = run(tmp_path, **{EXAMPLES: of_one_item, "items": lambda rows: rows[:1], PAIRS: nothing})
    assert reasons["teach"].startswith("the teacher says nearly the same of all examples: ")
    assert reasons == {"teach": reasons["teach"], "evidence": NEEDS, "evaluate": NEEDS}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({EXAMPLES: nothing}, "there is no example"),
        (
            {"items": lambda rows: [{**row, "item_id": f"new-{row['item_id']}"} for row in rows]},
            "of an item of the cat",
        ),
        ({EXAMPLES: lambda rows: [row for row in rows if row["split_time"] == "test"]}, "no example is for training"),
    ],
    ids=["no examples", "another catalogue", "all on the last day"],
)
def test_without_examples_to_learn_from_all_is_left_out(tmp_path: Path, changes: dict[str, Change], why: str) -> None:
    reasons = run(tmp_path, users=9, **changes)
    assert why in reasons["teach"] and {reasons["evidence"], reasons["evaluate"]} == {NEEDS}


def test_a_shop_without_stars_has_figures_and_no_row_that_is_made_of_stars(tmp_path: Path) -> None:
    def unrated(rows: Rows) -> Rows:
        bare = {"rating": None, MEAN_RATING: None}
        return [{**row, **bare, "history_ratings": [None] * len(row["history_ratings"])} for row in rows]

    assert set(run(tmp_path, **{EXAMPLES: unrated}).values()) == {""}
    rows = {name.split(".")[0] for name in metrics(tmp_path, "evaluate")}
    assert {"majority", "popularity", "nearness", JUDGE} <= rows and not {"item_mean", "text_liked"} & rows


def test_customers_who_buy_the_same_things_every_week_have_figures(tmp_path: Path) -> None:
    """The judge learns that what was taken often is not new."""

    def weekly(rows: Rows) -> Rows:
        found = []
        for row in rows:
            again = row["kinds"] == ["taken"]
            own = [row["item_id"], *row["history_item_ids"][:2]] if again else row["history_item_ids"][:3]
            history = (own * 7)[:20]
            found.append({**row, "history_item_ids": history, "history_ratings": [None] * len(history), EVENTS: 50})
            found[-1]["later_item_ids"] = [item for item in own if item != row["item_id"]]
        return found

    assert set(run(tmp_path, **{EXAMPLES: weekly}).values()) == {""}
    figures = metrics(tmp_path, "evaluate")
    assert figures[f"{JUDGE}.point_accuracy.novelty"] > figures["majority.point_accuracy.novelty"]


def test_odd_ids_and_titles_are_text_like_any_other(tmp_path: Path) -> None:
    """What `field-cases` has of ids and titles that reach these tables; what else is odd there, the ingest refuses."""
    names = dict(
        zip([f"i{n}" for n in range(5)], ("=1+1", "<b>x</b>", "../../etc/passwd", "NaN", "a b\tc"), strict=True)
    )
    titles = ("笔记本", "🖊️🖊️", "عربى", "?!…", "x" * 20_000)

    def other(item: str) -> str:
        return names.get(item, item)

    def items(rows: Rows) -> Rows:
        return [
            {**row, "item_id": other(row["item_id"]), **({"title": titles[n]} if n < 5 else {})}
            for n, row in enumerate(rows)
        ]

    def examples(rows: Rows) -> Rows:
        lists = ("history_item_ids", "later_item_ids")
        return [
            {**row, "item_id": other(row["item_id"]), **{name: [*map(other, row[name])] for name in lists}}
            for row in rows
        ]

    def pairs(rows: Rows) -> Rows:
        return [{**row, **{name: other(row[name]) for name in ("preferred_item_id", "other_item_id")}} for row in rows]

    run(tmp_path / "plain")
    assert set(run(tmp_path / "odd", items=items, **{EXAMPLES: examples, PAIRS: pairs}).values()) == {""}
    plain, odd = (metrics(tmp_path / name, "evaluate") for name in ("plain", "odd"))
    assert odd["test_pairs"] == plain["test_pairs"] and odd.keys() == plain.keys()
    labels = pq.read_table(tmp_path / "odd" / "teach" / "tables" / "judge_labels" / "part-0.parquet")
    assert set(names.values()) <= set(labels["item_id"].to_pylist())


def test_tables_that_break_their_contract_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have no 'item_id'"):
        run(tmp_path, users=9, **{EXAMPLES: lambda rows: [{**rows[0], "item_id": None}, *rows]})
