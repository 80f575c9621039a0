"""The generated shop has the size that it was asked for, in the tables that the stages read."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq

from training.core.stage import StageSpec, TableRef
from training.generative_rec.catalogue import read_catalogue
from training.generative_rec.generated_shop import write_shop
from training.generative_rec.samples import PARTS, check_known, of_part, read_samples


def test_a_shop_has_so_many_items_and_events_and_its_histories_are_of_days_before(tmp_path: Path) -> None:
    write_shop(tmp_path, 70, 2000)
    tables = {name: TableRef((str(tmp_path / f"{name}.parquet"),)) for name in ("items", "next_item_training_set")}
    spec = StageSpec("generative_rec", "sft", str(tmp_path), 1, tables=tables)
    samples, items = read_samples(spec, "time"), [item["item_id"] for item in read_catalogue(spec, ())]
    assert (len(items), len(samples)) == (70, 2000)
    check_known(samples, items)
    assert all(len(of_part(samples, part)) for part in PARTS)
    for _, own in groupby(samples, key=lambda sample: sample.user_id):
        past: list[str] = []
        for _, of_day in groupby(own, key=lambda sample: sample.as_of):
            day = list(of_day)
            # A history is in the order of the events, samples of one time come by item.
            assert {tuple(sorted(sample.history)) for sample in day} == {tuple(sorted(past[-20:]))}
            past += [sample.item_id for sample in day]


def test_a_shop_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shop(tmp_path / folder, 60, 400, seed)
    first, again, other = (pq.read_table(tmp_path / f / "next_item_training_set.parquet") for f in "abc")
    assert first.equals(again) and not first.equals(other)
