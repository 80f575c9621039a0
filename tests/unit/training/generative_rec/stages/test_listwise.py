"""List-level SFT: what is asked of the ranker, who is named, what is held back and drawn, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.unit.training.alignment_kit import ITEMS, load, named, write_start
from tests.unit.training.ranker_kit import Told, view
from training.core.errors import DataError
from training.core.listwise import Listed
from training.core.loop import Loop
from training.core.stage import StageSpec
from training.generative_rec.alignment import AlignmentStage
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.soft_targets import Asked, SoftTarget
from training.generative_rec.stages import listwise
from training.generative_rec.validation import Example
from training.ranker.serve import RankerRow

CONFIG: dict[str, Any] = {"loop": {"row_tokens": 256, "epochs": 1}, "gate": {"max_loss": 9.0, "valid": 0.0}}
SEQUENCES = [[ITEMS[(user + 5 * step) % 12] for step in range(5)] for user in range(30)]  # the last two are held out


@pytest.fixture
def spec(tmp_path: Any) -> StageSpec:
    return named(write_start(tmp_path), "stage", CONFIG)


def even(history: Sequence[str], item: str) -> float:
    return 0.1


def told(monkeypatch: pytest.MonkeyPatch, says: Callable[[Sequence[str], str], float]) -> None:
    monkeypatch.setattr(RankerView, "of", lambda spec, split: view(says, ITEMS))


def test_asked_are_the_ends_and_the_histories_of_the_training_part_and_no_event_more(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set[tuple[str, ...]]()
    told(monkeypatch, lambda history, item: float(asked.add(tuple(history)) or 0.1))
    found = listwise.main(spec)
    assert asked == {tuple(items[:cut]) for items in SEQUENCES for cut in (1, 2, 3)}
    assert found.metrics["asked"] == found.metrics["lists"] == 90.0


class Captured(Exception):
    """What a loop was given: `samples(epoch)` and the lists to judge by."""


def captured(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[int], list[Listed]], list[Listed]]:
    def train(self: Loop[Listed], samples: Callable[[int], list[Listed]], valid: list[Listed], *rest: Any) -> None:
        assert not rest  # the loss on `valid` chooses the weights
        raise Captured(samples, valid)

    told(monkeypatch, even)
    monkeypatch.setattr(Loop, "train", train)
    with pytest.raises(Captured) as given:
        listwise.main(spec)
    samples, valid = given.value.args
    return samples, valid


def test_each_epoch_draws_anew_and_what_judges_is_whole_and_of_other_users(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, valid = captured(replace(spec, config={**spec.config, "draws": 3}), monkeypatch)
    assert len(samples(0)) + len(valid) == 90 and len(valid) == 3  # of one user in twenty
    assert samples(0) == samples(0) != samples(1)
    assert all(len(one.responses) <= 3 for one in samples(0))
    # 11, 10 and 9 of 12 items are in no history of theirs; after two of them the item that was taken joins.
    assert all(len(one.responses) >= 9 for one in valid)


def target(user: str, taken: str | None) -> SoftTarget:
    return SoftTarget(Asked(user, ("i0", "i1"), taken, frozenset()), ("i2", "i3"), np.array([0.5, 0.5]))


def test_held_back_are_all_lists_of_one_user_in_twenty() -> None:
    found = [target(f"u{n % 40}", None) for n in range(200)]
    learnt, judged = listwise.held_back(found, 1)
    assert len(judged) == 10 and len({one.asked.user for one in judged}) == 2
    assert not {one.asked.user for one in judged} & {one.asked.user for one in learnt}
    few = listwise.held_back([target("a", None), target("b", None)], 1)
    assert [len(part) for part in few] == [1, 1]


def test_half_of_the_ends_say_whose_they_are_and_no_earlier_history_does(spec: StageSpec) -> None:
    _, items = load(spec, spec.artifacts["sft"])
    known = replace(items, users={"u": (270,)})
    rng = np.random.default_rng(2)
    prompts = {
        taken: [one.prompt for one in listwise._listed([target("u", taken)] * 400, known, 20, rng)]
        for taken in (None, "i2")
    }
    naming = {taken: sum(270 in prompt for prompt in found) for taken, found in prompts.items()}
    assert naming["i2"] == 0 and 150 < naming[None] < 250
    assert set(prompts[None]) == {known.prompt(("i0", "i1"), 20, "u"), known.prompt(("i0", "i1"), 20)}


@pytest.mark.parametrize("rank_own", [True, False])
def test_where_own_items_are_not_recommended_nothing_is_learnt_of_an_item_that_is_taken_again(rank_own: bool) -> None:
    row = Told(even, ITEMS)
    said = SimpleNamespace(bundle=SimpleNamespace(rank_own=rank_own), answer=row.answer, store_features=())
    ranker = RankerView(cast(RankerRow, said))
    stage = SimpleNamespace(
        examples=[Example("u", (), 1, ("i0",)), Example("u", (), 0, ("i0", "i1"))],
        items=SimpleNamespace(item_ids=ITEMS), samples=[], spec=SimpleNamespace(seed=1),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listwise, "sequences_by_user", lambda samples: {"u": ["i0", "i1", "i0"]})
        config = listwise.Config(start="sft")
        asked = listwise._asked(cast(AlignmentStage, stage), ranker, config)
    assert [one.taken for one in asked] == ([None, "i1", "i0"] if rank_own else [None, "i1"])


def test_rows_that_are_too_short_for_a_whole_list_are_refused_before_anything_is_learnt(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, even)
    monkeypatch.setattr(Loop, "train", lambda *_: pytest.fail("trained"))
    short = replace(spec, config={**spec.config, "loop": {"row_tokens": 16}})
    with pytest.raises(DataError, match=r"a list has 31 tokens with its history, a row 16") as refused:
        listwise.main(short)
    assert "ranked.top" in str(refused.value)


def test_lists_of_too_few_users_leave_the_stage_out(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, lambda history, item: 0.1 if history[0] == "i0" else 0.0)
    result = listwise.main(spec)
    assert result.metrics["accepted"] == 0.0 and result.metrics["lists"] > 0.0
    assert "the ranker's lists are of 3 users, fewer than 20" in (spec.out_dir / "gate.json").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"draws": 0}, "0 draws of a list"),
        ({"ranked": {"temperature": 0.0}}, "temperature 0 and truth"),
        ({"ranked": {"temperature": -1.0}}, "temperature -1 and truth"),
        ({"ranked": {"truth": 1.0}}, "truth 1 make no list"),
        ({"ranked": {"truth": -0.1}}, "truth -0.1 make no list"),
        ({"ranked": {"top": 0}}, "top 0, temperature"),
    ],
)
def test_settings_that_make_no_list_are_refused_before_the_ranker_is_asked(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(RankerView, "of", lambda spec, split: pytest.fail("asked"))
    with pytest.raises(DataError, match=words):
        listwise.main(replace(spec, config={**spec.config, **changes}))
