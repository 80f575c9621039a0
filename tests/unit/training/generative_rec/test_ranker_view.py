"""Which ranker a stage may ask, and that it answers as it serves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.alignment_kit import ITEMS, write_samples, write_start
from tests.unit.training.ranker_kit import with_ranker
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, TableRef
from training.generative_rec.alignment import AlignmentConfig, AlignmentStage
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.soft_targets import asked_of
from training.next_item.recommender import ListRequest
from training.next_item.samples import last_told
from training.ranker.serve import load


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StageSpec:
    folder = tmp_path_factory.mktemp("shop")
    return with_ranker(write_start(folder), folder / "ranker", ITEMS)


def test_a_shop_without_a_ranker_is_told_so(spec: StageSpec) -> None:
    for models in ({}, {"ranker": ()}):
        with pytest.raises(LeftOut, match="no ranker has been trained yet"):
            RankerView.of(replace(spec, models=models), "time")


def test_a_ranker_of_another_split_is_refused(spec: StageSpec) -> None:
    with pytest.raises(DataError, match="fitted for the split time, and this is a run of leave_one_out") as refused:
        RankerView.of(spec, "leave_one_out")
    assert not isinstance(refused.value, LeftOut)


def test_a_ranker_that_has_learnt_of_a_day_that_is_held_out_is_not_asked(spec: StageSpec, tmp_path: Path) -> None:
    """The third day was a training day when the ranker learnt; in this run it is one of validation."""
    parts = [["train", "train", "valid", "test", "test"][step % 5] for step in range(150)]
    earlier = write_samples(tmp_path / "samples.parquet", split_time=parts)
    tables = {"next_item_training_set": TableRef((str(earlier),))}
    with pytest.raises(LeftOut, match="learnt of days after the training part"):
        RankerView.of(replace(spec, tables=tables), "time")


def test_a_ranker_that_learns_from_validation_is_not_asked(spec: StageSpec, tmp_path: Path) -> None:
    fresh = with_ranker(spec, tmp_path / "fresh", ITEMS, learn_from="validation")
    with pytest.raises(LeftOut, match="learnt of days after the training part"):
        RankerView.of(fresh, "time")


def test_nor_where_each_users_last_items_are_held_out_and_no_day_tells(spec: StageSpec, tmp_path: Path) -> None:
    own = with_ranker(spec, tmp_path / "own", ITEMS, split="leave_one_out", learn_from="validation", rank_own=False)
    with pytest.raises(LeftOut, match="learnt from the validation part, by which this run chooses"):
        RankerView.of(own, "leave_one_out")
    same = with_ranker(spec, tmp_path / "same", ITEMS, split="leave_one_out", rank_own=False)
    assert RankerView.of(same, "leave_one_out").row.bundle.learnt_from == "train"


def test_a_bundle_that_does_not_say_what_it_learnt_from_still_answers(spec: StageSpec, tmp_path: Path) -> None:
    """As those that were written before it was noted."""
    early = with_ranker(spec, tmp_path / "early", ITEMS, split="leave_one_out", rank_own=False)
    noted = Path(early.models["ranker"][0].folder) / "bundle.json"
    settings = json.loads(noted.read_text())
    del settings["learnt_from"]
    noted.write_text(json.dumps(settings))
    assert load(noted.parent).recommend([["i1"]], 3, rank_own=True)[0]
    with pytest.raises(LeftOut, match="or does not say from which"):
        RankerView.of(early, "leave_one_out")


def test_it_answers_as_it_serves_and_asks_for_nobody(spec: StageSpec) -> None:
    view, histories = RankerView.of(spec, "time"), [("i1", "i6"), ("i3",), ()]
    assert date.fromordinal(date(1970, 1, 1).toordinal() + view.row.bundle.until) == date(2024, 1, 3)
    pasts = [ListRequest(history, None, frozenset()) for history in histories]
    lists = view.lists(pasts, 5, ITEMS)
    assert lists == view.row.recommend(histories, 5, rank_own=True)
    assert "i11" in [item for item, _ in lists[0][:3]]  # five further, as most go; the first three are as likely
    named = [[item for item, chance in line if chance > 0.0] for line in lists]
    for line, own, chances in zip(lists, named, view.chances(pasts, named), strict=True):
        assert chances.tolist() == [dict(line)[item] for item in own]
    assert named[0]
    assert {item for item, _ in view.lists(pasts, 3, ["i11", "i2"])[0]} == {"i11", "i2"}


def test_where_own_items_are_not_recommended_none_is_in_a_list(spec: StageSpec, tmp_path: Path) -> None:
    view = RankerView.of(with_ranker(spec, tmp_path / "new", ITEMS, rank_own=False), "time")
    (line,) = view.lists([ListRequest(("i1", "i6"), None, frozenset())], 12, ITEMS)
    assert {"i1", "i6"}.isdisjoint(item for item, _ in line) and len(line) == 10


def test_what_the_store_said_of_the_user_then_is_asked_with_the_history(tmp_path: Path) -> None:
    """Through the stage's own samples and examples: the ranker answers as to a request that says the same."""
    name, start = "user_daily__n", write_start(tmp_path)
    write_samples(tmp_path / "samples.parquet", **{name: [n % 7 for n in range(150)]})
    spec = with_ranker(start, tmp_path / "ranker", ITEMS, store_features=[name])
    view = RankerView.of(spec, "time")
    stage = AlignmentStage.start(spec, AlignmentConfig(start="sft"), view.store_features)
    told = {one.store_features[name] for one in stage.examples}
    assert list(view.store_features) == [name] and told == {float(n) for n in range(7)}
    asked = [ListRequest(one.history, None, frozenset(), one.store_features) for one in stage.examples]
    plain = [replace(one, store_features={}) for one in asked]
    every = [ITEMS] * len(asked)
    says, said, blind = (
        view.chances(stage.examples, every),
        view.row.chances(asked, every),
        view.row.chances(plain, every),
    )
    assert np.array_equal(says, said) and not np.array_equal(says, blind)
    (ends,) = asked_of({"u00": ITEMS[:3]}, [], 1, 1, last_told(stage.samples))
    assert ends.store_features == {name: 2.0}  # the third of the five days is the last of the training part
    assert not AlignmentStage.start(spec, AlignmentConfig(start="sft")).examples[0].store_features
