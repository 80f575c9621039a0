"""Real logs of queries as landing files and sample tables, on made-up files of their format."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "real_queries.py"
ROWS = [  # who, thing, its category, words, day and hour of the query
    ("ann", "1", "tvs", "lcd tv", "2011-10-01 10:00:00"),
    ("bob", "1", "tvs", "LCD  tv", "2011-10-02 10:00:00.5"),
    ("bob", "2", "tvs", "sharp", "2011-10-03 10:00:00"),
    ("cat", "3", "pads", "ipad", "2011-10-04 10:00:00"),
    ("ann", None, "tvs", "Sharp", "2011-10-21 10:00:00"),
    ("dan", "1", "tvs", "held out", "2011-10-22 10:00:00"),
    ("dan", "9", "new", "held out", "2011-10-22 10:00:00"),
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_queries", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, found = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    clicks = pd.DataFrame(ROWS, columns=["user", "sku", "category", "query", "query_time"])
    later = pd.to_datetime(clicks["query_time"], format="ISO8601") + pd.Timedelta(seconds=30)
    _write(clicks.assign(click_time=later.astype(str)), data / script.BEST_BUY / "query_clicks.parquet")
    products = [f"p{n}" for n in range(40)]
    judged = [(f"query {n // 2}", f"p{n}", "E" if n % 2 else "S") for n in range(40)]
    shop = {
        "asin": products,
        "title": [f"Thing {n}" for n in products],
        "brand": None,
        "category": [["Home", "Pots"]] * 40,
    }
    _write(pd.DataFrame(judged, columns=["query", "asin", "esci_label"]), data / script.ESCI / "judgments.parquet")
    _write(pd.DataFrame(shop), data / script.ESCI / "products.parquet")
    script.main(data, found)
    return found


def test_searches_and_clicks_are_landed_and_no_held_out_word_names_a_thing(out: Path) -> None:
    landing = out / "best_buy" / "landing"
    items = pd.read_parquet(landing / "items.parquet").set_index("item_id")
    assert items["title"].to_dict() == {"1": "lcd tv", "2": "sharp", "3": "ipad", "tvs": "lcd tv", "9": "new"}
    searches = pd.read_parquet(landing / "searches" / "searches.parquet")
    assert len(searches) == 6 and searches["request_id"].is_unique
    assert len(pd.read_parquet(landing / "events" / "clicks.parquet")) == 7


def test_a_thing_of_best_buy_is_known_by_what_others_searched_for_before(out: Path) -> None:
    samples = pq.read_table(out / "best_buy_things" / "query_samples.parquet").to_pylist()
    titles = pd.read_parquet(out / "best_buy_things" / "items.parquet").set_index("item_id")["title"]
    told = {
        (row["user_id"], row["labels"][0]): (row["split_time"], titles[row["behaviour_contents"][0]])
        for row in samples
        if row["form"] == "think"
    }
    assert told["ann", "lcd tv"] == ("train", "lcd tv sharp") and told["cat", "ipad"] == ("train", "")
    assert told["ann", "Sharp"] == ("test", "lcd tv sharp")  # bob's
    assert {row["split_time"] for row in samples if not row["labels"]} == {"train"}


def test_what_was_done_on_training_days_is_known_the_day_after(out: Path) -> None:
    samples = pq.read_table(out / "best_buy_things" / "query_samples.parquet").to_pylist()
    (after,) = (row for row in samples if row["user_id"] == "bob" and row["request_id"] == "after")
    assert after["behaviour_actions"] == ["search", "click"] * 2 and after["behaviour_days_ago"] == [2, 2, 1, 1]
    assert after["behaviour_contents"][::2] == ["LCD tv", "sharp"]


def test_a_query_of_esci_is_in_one_part_and_its_things_are_exact(out: Path) -> None:
    samples = pq.read_table(out / "esci_things" / "query_samples.parquet").to_pylist()
    days = [row for row in samples if row["form"] == "think"]
    assert len(days) == 20 and len({row["split_time"] for row in days}) == 3
    for row in days:
        assert row["labels"] == [row["user_id"]]
        assert row["behaviour_contents"] == [f"p{2 * int(row['user_id'].split()[1]) + 1}"]


def test_a_set_that_is_not_there_is_left_out_and_said(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(tmp_path, tmp_path / "out")
    assert capsys.readouterr().out.count("left out") == 2 and not (tmp_path / "out").exists()


def _write(frame: pd.DataFrame, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(file, index=False)
