"""From samples to a packaged ranker, for shops of several kinds: each has an outcome that is said."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.sample_kit import write_rows
from training.core.stage import StageSpec, TableRef, run_stage
from training.next_item.recommender import ListRequest
from training.ranker import shop as shop_module
from training.ranker.bundle import Bundle
from training.ranker.serve import RankerRow, SignalRow, load
from training.ranker.stages import evaluate, ranker

FIRST, ITEMS, USERS, DAYS = date(2024, 1, 1), 40, 60, 16
CONFIG: dict[str, Any] = {
    "texts": ["tf_idf"],
    "share": 0.2,
    "signals": {"sasrec": {"width": 8, "heads": 1, "length": 10, "epochs": 2}},
    "learner": {"rounds": 30, "patience": 10, "min_data_in_leaf": 5, "num_leaves": [7]},
}


def _taken(kind: str, user: int, rng: np.random.Generator) -> list[int]:
    """One item a day: `mixed` goes on to the next one mostly, `repeats` has three of its own, `new` never repeats."""
    if kind == "repeats":
        return [(7 * user + int(step)) % ITEMS for step in rng.integers(0, 3, DAYS)]
    if kind == "new":
        return rng.permutation(ITEMS)[:DAYS].tolist()
    if kind == "one item":
        return [0] * DAYS
    if kind == "popular":
        return np.minimum(rng.geometric(0.3, DAYS) - 1, ITEMS - 1).tolist()
    if kind == "personal":
        return [(7 * user) % ITEMS] * DAYS
    if kind == "text":
        return (4 * (user % (ITEMS // 4)) + rng.integers(0, 4, DAYS)).tolist()
    steps = np.where(rng.random(DAYS) < 0.8, 1, rng.integers(0, ITEMS, DAYS))
    return ((user + np.cumsum(steps)) % ITEMS).tolist()


def shop(folder: Path, kind: str = "mixed", texts: bool = True, prices: bool = True) -> dict[str, TableRef]:
    """The tables of a shop: 60 users with 16 days each; the last two days are validation, then test."""
    folder.mkdir()
    rng, rows = np.random.default_rng(4), []
    for user in range(USERS):
        items = [f"i{item:02d}" for item in _taken(kind, user, rng)]
        for day, item in enumerate(items):
            on = FIRST + timedelta(days=day)
            part = "train" if day < DAYS - 2 else "valid" if day == DAYS - 2 else "test"
            rows.append((f"u{user}", on, datetime(on.year, on.month, on.day, tzinfo=UTC), item, items[:day], part))
    ids = [f"i{item:02d}" for item in range(1 if kind == "one item" else ITEMS)]
    words = {name: [None] * len(ids) for name in ("brand", "description", "features", "category")}
    titles = [f"pen {int(item[1:]) // 4}" if texts else "" for item in ids]
    table = {"item_id": ids, "source": ["shop"] * len(ids), "title": titles, **words}
    cost = [float(place % 5 + 1) if prices else None for place in range(len(ids))]
    schema = pa.schema([*((name, pa.string()) for name in table), ("price", pa.float64())])
    pq.write_table(pa.table({**table, "price": cost}, schema=schema), folder / "items.parquet")
    files = {"next_item_training_set": write_rows(folder / "samples.parquet", rows), "items": folder / "items.parquet"}
    return {name: TableRef((str(file),)) for name, file in files.items()}


def trained(folder: Path, tables: dict[str, TableRef], **changes: Any) -> StageSpec:
    spec = StageSpec("ranker", "ranker", str(folder / "ranker"), 5, tables=tables, config={**CONFIG, **changes})
    run_stage(spec, ranker.main)
    return spec


def measured(folder: Path, tables: dict[str, TableRef], **changes: Any) -> dict[str, float]:
    """The metrics of the evaluation."""
    artifacts = {"ranker": str(folder / "ranker")}
    config = {"resamples": 20, "depth": 10, **changes}
    spec = StageSpec("ranker", "evaluate", str(folder / "evaluate"), 5, tables, artifacts, config)
    run_stage(spec, evaluate.main)
    found: dict[str, float] = json.loads((folder / "evaluate" / "result.json").read_text())["metrics"]
    return found


def signals_of(folder: Path) -> set[str]:
    return set(Bundle.load(folder / "ranker" / "model").signals)


def test_the_ranker_is_above_chance_and_its_folder_answers_as_it_was_measured(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop")
    trained(tmp_path, tables)
    metrics = measured(tmp_path, tables)
    assert metrics["ranker.recall@10"] > 0.5 > 10 / ITEMS
    assert metrics["ranker.ndcg@10"] >= 0.9 * max(metrics[f"{name}.ndcg@10"] for name in signals_of(tmp_path))
    values = pq.read_table(tmp_path / "evaluate" / "tables" / "eval_values" / "part-0.parquet").to_pylist()
    assert {row["model"] for row in values} == {*signals_of(tmp_path), "ranker"}
    model = load(tmp_path / "evaluate" / "model")
    example = pq.read_table(tmp_path / "evaluate" / "model" / "example.parquet").to_pandas()
    answers = model.predict(example, {"k": 7})
    assert [len(items) for items in answers["items"]] == [7, 7]
    assert all(0.0 <= score <= 1.0 for scores in answers["scores"] for score in scores)
    known = model.predict(pd.DataFrame({"history": [["i01", "i02"]], "user_id": ["u3"]}), {})
    assert len(known["items"][0]) == 10


@pytest.mark.parametrize("learn_from", ["train", "validation"])
def test_both_ways_of_learning_leave_a_ranker(tmp_path: Path, learn_from: str) -> None:
    tables = shop(tmp_path / "shop")
    trained(tmp_path, tables, learn_from=learn_from, split="leave_one_out", rank_own=False, share=0.3)
    assert (tmp_path / "ranker" / "early").is_dir() == (learn_from == "train")
    metrics = measured(tmp_path, tables, split="leave_one_out", rank_own=False)
    assert metrics["leave_one_out.ranker.recall@10"] > 0.3


def test_a_shop_of_repeats_is_ranked_by_what_its_users_take(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop", kind="repeats")
    trained(tmp_path, tables)
    metrics = measured(tmp_path, tables)
    assert metrics["ranker.recall@5"] > 0.95
    assert metrics["personal.recall@5"] > metrics["popularity.recall@5"]


def test_a_shop_without_repeats_texts_and_prices_has_a_ranker_of_the_rest(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop", kind="new", texts=False, prices=False)
    trained(tmp_path, tables)
    assert signals_of(tmp_path) == {"popularity", "personal", "forward", "backward", "both", "sasrec"}
    bundle = Bundle.load(tmp_path / "ranker" / "model")
    names = bundle.ranker.names  # type: ignore[union-attr]
    histories = [[f"i{(user + step) % ITEMS:02d}" for step in range(DAYS)] for user in range(USERS)]
    lists = load(tmp_path / "ranker" / "model").recommend(histories, 10)
    own = [item in history for history, line in zip(histories, lists, strict=True) for item, _ in line]
    assert np.mean(own) < 0.1  # by chance .4: nobody takes anything again, and the ranker has learnt it
    assert not any(name.startswith(("price", "category", "text")) for name in names)


@pytest.mark.parametrize(("kind", "works"), [("popular", "popularity"), ("personal", "personal"), ("text", "text")])
def test_where_a_single_signal_works_the_ranker_is_no_worse(tmp_path: Path, kind: str, works: str) -> None:
    tables = shop(tmp_path / "shop", kind=kind)
    trained(tmp_path, tables)
    found = measured(tmp_path, tables)
    assert found[f"{works}.ndcg@10"] > 0.3
    assert found["ranker.ndcg@10"] > 0.9 * found[f"{works}.ndcg@10"]


def test_a_shop_of_one_item_is_told_that_there_is_nothing_to_rank(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop", kind="one item")
    trained(tmp_path, tables)
    result = json.loads((tmp_path / "ranker" / "result.json").read_text())
    assert "one item" in result["left_out"]


def test_a_run_that_was_killed_goes_on_with_the_signals_that_were_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = shop(tmp_path / "shop")
    with monkeypatch.context() as patch:
        patch.setattr(shop_module, "fit_as_chosen", lambda *asked: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, tables)
    monkeypatch.setattr(shop_module, "choose", lambda *asked: pytest.fail("fitted again"))
    trained(tmp_path, tables)
    killed = Bundle.load(tmp_path / "ranker" / "model")
    monkeypatch.undo()
    (tmp_path / "again").mkdir()
    trained(tmp_path / "again", tables)
    whole = Bundle.load(tmp_path / "again" / "ranker" / "model")
    assert killed.ranker is not None and whole.ranker is not None
    assert killed.ranker.trees.model_to_string() == whole.ranker.trees.model_to_string()


def test_a_given_item_has_the_probability_of_the_list_whatever_it_is_asked_with(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop")
    trained(tmp_path, tables)
    row = load(tmp_path / "ranker" / "model")
    asked = [ListRequest(("i05", "i06"), None, frozenset()), ListRequest((), "u3", frozenset({"i01"}))]
    lists = [dict(line) for line in row.answer(asked, 30, None)]
    named = [[item for item, chance in line.items() if chance > 0.0][::3] for line in lists]
    alone, beside = row.chances(asked, named), row.chances(asked, [[*own, "gone", "i39", own[0]] for own in named])
    for line, own, first, second in zip(lists, named, alone, beside, strict=True):
        assert len(own) > 3
        assert first.tolist() == [line[item] for item in own]
        assert second[: len(own)].tolist() == first.tolist() and second[-1] == first[0]
        assert np.isnan(second[len(own)]) and 0.0 <= second[len(own) + 1] <= 1.0
    assert row.chances([], []) == [] and [len(own) for own in row.chances(asked, [[], ["gone"]])] == [0, 1]


@pytest.mark.parametrize(("learn_from", "last"), [("train", DAYS - 3), ("validation", DAYS - 2)])
def test_a_ranker_says_of_which_split_it_is_and_up_to_which_day_it_has_learnt(
    tmp_path: Path, learn_from: str, last: int
) -> None:
    trained(tmp_path, shop(tmp_path / "shop"), learn_from=learn_from)
    bundle = Bundle.load(tmp_path / "ranker" / "model")
    assert (bundle.split, date.fromordinal(date(1970, 1, 1).toordinal() + bundle.until)) == (
        "time", FIRST + timedelta(days=last),
    )  # fmt: skip


def test_lists_are_full_hold_no_item_that_is_left_out_and_stay_in_the_catalogue_of_the_day(tmp_path: Path) -> None:
    tables = shop(tmp_path / "shop")
    trained(tmp_path, tables)
    bundle = Bundle.load(tmp_path / "ranker" / "model")
    assert bundle.ranker is not None
    rows = [RankerRow(bundle, bundle.ranker), *(SignalRow(bundle, name) for name in bundle.signals)]
    within = [f"i{item:02d}" for item in range(0, 30)]
    for row in rows:
        lists = row.recommend([["i05", "i06"], [], ["gone"]], 20, rank_own=False, within=within)
        assert [len({item for item, _ in line}) for line in lists] == [20, 20, 20]
        assert all(item in within for line in lists for item, _ in line)
        assert not {"i05", "i06"} & {item for item, _ in lists[0]}
