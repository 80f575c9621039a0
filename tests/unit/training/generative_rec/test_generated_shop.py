"""The generated shop has the size that it was asked for, in the tables that the stages read."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq

from training.core.catalogue import read_catalogue
from training.core.stage import StageSpec, TableRef
from training.generative_rec.generated_shop import write_shop
from training.next_item.samples import SUBSETS, TABLE, of_subset, read_samples


def test_a_shop_has_so_many_items_and_events_and_its_histories_are_of_days_before(tmp_path: Path) -> None:
    write_shop(tmp_path, 70, 2000)
    tables = {name: TableRef((str(tmp_path / f"{name}.parquet"),)) for name in ("items", "next_item_training_set")}
    spec = StageSpec("generative_rec", "sft", str(tmp_path), 1, tables=tables)
    samples, items = read_samples(spec, "time"), [item["item_id"] for item in read_catalogue(spec, (), TABLE)]
    rows = pq.read_table(tmp_path / "next_item_training_set.parquet").to_pylist()
    assert (len(items), len(rows)) == (70, 2000)
    assert {item for row in rows for item in (row["item_id"], *row["history_item_ids"])} <= set(items)
    assert all(len(of_subset(samples, part)) for part in SUBSETS)
    rows.sort(key=lambda row: (row["user_id"], row["event_time"]))
    for _, own in groupby(rows, key=lambda row: row["user_id"]):
        past: list[str] = []
        for _, of_day in groupby(own, key=lambda row: row["sample_date"]):
            day = list(of_day)
            # A history is in the order of the events; those of one time may stand in any.
            assert {tuple(sorted(row["history_item_ids"])) for row in day} == {tuple(sorted(past[-20:]))}
            past += [row["item_id"] for row in day]


def test_a_shop_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shop(tmp_path / folder, 60, 400, seed)
    first, again, other = (pq.read_table(tmp_path / f / "next_item_training_set.parquet") for f in "abc")
    assert first.equals(again) and not first.equals(other)
