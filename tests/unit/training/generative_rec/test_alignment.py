"""Preference stages and GRPO: where they start, what they learn from, a kill, the gate, what goes on; without a ranker
and with one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.alignment_kit import (
    ITEMS,
    Killed,
    after,
    killed_in_step,
    load,
    logged,
    named,
    weights,
    write_start,
)
from tests.unit.training.ranker_kit import with_ranker
from training.core.errors import DataError, Preempted
from training.core.gated_stage import StageGate
from training.core.preference import Preference, with_reference
from training.core.stage import StageResult, StageSpec, run_stage
from training.generative_rec.alignment import AlignmentStage
from training.generative_rec.negatives import Choice, self_play
from training.generative_rec.stages import grpo, listwise, progressive
from training.generative_rec.validation import Validation, draw_examples
from training.next_item.samples import of_subset, read_samples

OPEN = {"max_loss": 9.0, "valid": 0.0, "samples": 20}
LOOP = {"epochs": 2, "rows": 4, "row_tokens": 128, "learning_rate": 0.01, "log_steps": 1, "checkpoint_steps": 2}
CHOICE = {"least": 2, "beams": 12}
SELF_PLAY = {"source": "self_play", "level": "mixed", "choice": CHOICE, "least": 3, "loop": LOOP, "gate": OPEN}
FEEDBACK = {**SELF_PLAY, "source": "real_feedback", "level": "easy", "loop": {**LOOP, "rows": 1}}
POLICY: dict[str, Any] = {
    "rounds": 24, "prompts": 30, "minibatch": 30, "rows": 4, "row_tokens": 128, "learning_rate": 0.005,
    "eval_rounds": 4, "checkpoint_rounds": 3,
}  # fmt: skip
GRPO = {"beams": 12, "policy": POLICY, "gate": OPEN}
RANKED = {**SELF_PLAY, "source": "ranker", "level": "mixed", "choice": {**CHOICE, "least": 1}}
SHORT = {**GRPO, "policy": {**POLICY, "rounds": 6}}
LISTWISE = {"examples": 30, "loop": {**LOOP, "row_tokens": 256, "rows": 1, "epochs": 3}, "gate": OPEN}


@pytest.fixture
def spec(tmp_path: Path) -> StageSpec:
    return write_start(tmp_path)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> StageSpec:
    """The same shop with a ranker."""
    folder = tmp_path_factory.mktemp("ranked")
    return with_ranker(write_start(folder), folder / "ranker", ITEMS)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> StageSpec:
    """A finished run of GRPO: a start that recommends well."""
    stage = named(write_start(tmp_path_factory.mktemp("good")), "good", {**GRPO, "gate": {**OPEN, "max_loss": 0.0}})
    run_stage(stage, grpo.main)
    return stage


def metrics(spec: StageSpec) -> dict[str, float]:
    return dict(json.loads((spec.out_dir / "result.json").read_text())["metrics"])


def record(spec: StageSpec) -> dict[str, Any]:
    return dict(json.loads((spec.out_dir / "gate.json").read_text()))


def own_answers(spec: StageSpec, folder: str) -> list[Preference]:
    """What self-play of the model in `folder` gives to learn from, after the held-out part."""
    model, items = load(spec, folder)
    asked = draw_examples(of_subset(read_samples(spec, "time"), "train"), items, 20, 1000, spec.seed)
    kept, _ = self_play(model, items, asked, "mixed", Choice(**CHOICE))
    known = with_reference(model, kept, 0, LOOP["row_tokens"])
    return known[len(known) // 20 :]


def mean_of_rejected(preferences: list[Preference]) -> float:
    """Mean log-prob of the rejected answers of each preference, over all."""
    means = [sum(one.reference[1:]) / len(one.rejected) for one in preferences]
    return sum(means) / len(means)


def test_the_same_stage_ends_with_the_same_bits_and_not_where_it_started(spec: StageSpec) -> None:
    one, two = (named(spec, name, SELF_PLAY) for name in ("one", "two"))
    result = progressive.main(one)
    progressive.main(two)
    assert result.metrics["accepted"] == 1.0 and result.metrics["steps"] > 0
    assert weights(one.out) == weights(two.out) != weights(spec.artifacts["sft"])


def test_the_end_of_a_stage_is_start_and_reference_of_the_next_which_asks_it_for_its_own_answers(
    spec: StageSpec,
) -> None:
    whole_epoch = {**SELF_PLAY, "loop": {**LOOP, "rows": 200}}
    first = named(spec, "first", whole_epoch)
    second = after(named(spec, "second", whole_epoch), first)
    progressive.main(first)
    progressive.main(second)
    for stage, start in ((first, spec.artifacts["sft"]), (second, first.out)):
        expected = own_answers(spec, start)
        guess = sum(math.log(1 + len(one.rejected)) for one in expected) / len(expected)
        # Before the first update the policy is the reference: all candidates are equally good, d(y) = 0.
        assert logged(stage, "dpo_loss")[0] == pytest.approx(guess, rel=1e-4)
        assert logged(stage, "reward_margin")[0] == pytest.approx(0.0, abs=1e-4)
        assert logged(stage, "rejected_log_prob")[0] == pytest.approx(mean_of_rejected(expected), rel=1e-4)
    stale = mean_of_rejected(own_answers(spec, spec.artifacts["sft"]))
    assert logged(second, "rejected_log_prob")[0] != pytest.approx(stale, rel=1e-2)


def test_self_play_prefers_the_truth_to_what_the_policy_would_have_said(spec: StageSpec) -> None:
    stage = named(spec, "stage", {**SELF_PLAY, "loop": {**LOOP, "epochs": 8, "patience": 8}})
    progressive.main(stage)
    margins = logged(stage, "reward_margin")
    assert margins[-1] > margins[0] + 1.0
    assert logged(stage, "reward_accuracy")[-1] > 0.7


def test_five_negatives_are_asked_for_and_examples_with_fewer_are_counted(spec: StageSpec) -> None:
    loose = progressive.main(named(spec, "loose", {**SELF_PLAY, "level": "medium", "choice": {"least": 3}}))
    assert (loose.metrics["preferences"], loose.metrics["dropped"]) == (90.0, 0.0)  # 4 items share the first code
    plain = progressive.main(named(spec, "plain", {**SELF_PLAY, "level": "medium", "choice": {}}))
    assert (plain.metrics["preferences"], plain.metrics["dropped"]) == (0.0, 90.0)


def test_a_stage_with_too_few_preferences_hands_on_what_it_started_from_with_a_record(spec: StageSpec) -> None:
    few = named(spec, "few", {**FEEDBACK, "choice": {"least": 5}})
    result = progressive.main(few)
    assert result.metrics["accepted"] == 0.0 and "steps" not in result.metrics
    lacking = "too few customers gave one item 5 stars and at least 5 other items fewer than 3"
    assert record(few)["reason"] == f"0 preferences from 90 examples, fewer than 3: {lacking}"
    assert weights(few.out) == weights(spec.artifacts["sft"])


def test_a_shop_without_ratings_is_told_that_it_lacks_them(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive, "training_feedback", lambda spec, samples: [])
    silent = named(spec, "silent", FEEDBACK)
    progressive.main(silent)
    assert "its training events have no ratings" in record(silent)["reason"]


def test_feedback_counts_if_it_was_said_in_the_training_part(spec: StageSpec) -> None:
    result = progressive.main(named(spec, "said", FEEDBACK))
    assert (result.metrics["preferences"], result.metrics["accepted"]) == (30.0, 1.0)  # a liked one, two disliked ones
    # The third disliked item of each user is of the validation part.
    later = progressive.main(named(spec, "later", {**FEEDBACK, "choice": {"least": 3}}))
    assert (later.metrics["preferences"], later.metrics["dropped"]) == (0.0, 30.0)


def test_without_neutral_words_there_is_nothing_to_learn_on_the_hard_level(spec: StageSpec) -> None:
    result = progressive.main(named(spec, "hard", {**FEEDBACK, "level": "hard"}))
    assert (result.metrics["preferences"], result.metrics["accepted"]) == (0.0, 0.0)


def test_a_policy_that_cannot_write_ids_by_itself_is_refused(spec: StageSpec) -> None:
    assert StageGate().valid == 0.95
    stage = named(spec, "stage", {**SELF_PLAY, "gate": {"max_loss": 9.0}})
    assert progressive.main(stage).metrics["accepted"] == 0.0
    assert "unconstrained answers are valid, fewer than 95%" in record(stage)["reason"]
    assert weights(stage.out) == weights(spec.artifacts["sft"])


def test_a_chain_is_held_against_its_base_whatever_stood_between_and_never_on_other_examples(
    spec: StageSpec,
) -> None:
    first, left_out = named(spec, "first", SELF_PLAY), named(spec, "left_out", {**FEEDBACK, "choice": {"least": 5}})
    second, last = after(left_out, first), after(named(spec, "last", SELF_PLAY), left_out)
    found = [progressive.main(one).metrics for one in (first, second, last)]
    assert {one["base"] for one in found} == {found[0]["before"]}
    other = replace(last, config={**last.config, "gate": {**OPEN, "samples": 19}})
    with pytest.raises(DataError, match="measured on other validation examples"):
        progressive.main(other)


def test_a_policy_that_recommends_worse_than_it_did_is_refused_and_the_next_stage_starts_below_it(
    good: StageSpec,
) -> None:
    spoilt = after(named(good, "spoilt", {**SELF_PLAY, "gate": {**OPEN, "max_loss": 0.05}}), good)
    stage = AlignmentStage.start(
        spoilt, progressive.Config(**{**spoilt.config, "gate": StageGate(**spoilt.config["gate"])})
    )
    with torch.no_grad():
        for weight in stage.model.parameters():
            weight.normal_()
    result = stage.end({}, None, best=1)
    assert result.metrics["after"] < 0.9 * result.metrics["before"] and result.metrics["accepted"] == 0.0
    assert "at worst -" in record(spoilt)["reason"] and record(spoilt)["reason"].endswith("more than 5% allowed")
    assert weights(spoilt.out) == weights(good.out)
    onward = progressive.main(after(named(good, "onward", FEEDBACK), spoilt))
    assert onward.metrics["before"] == result.metrics["before"]


def test_a_stage_hands_on_its_first_weights_where_no_later_ones_are_better(good: StageSpec) -> None:
    wild = after(named(good, "wild_stage", {**SELF_PLAY, "loop": {**LOOP, "learning_rate": 0.3}}), good)
    result = progressive.main(wild)
    assert min(logged(wild, "eval_value")[1:]) > logged(wild, "eval_value")[0] == -result.metrics["before"]
    assert (result.metrics["best_step"], result.metrics["unmoved"], result.metrics["accepted"]) == (0.0, 1.0, 1.0)
    assert result.metrics["after"] == result.metrics["before"]
    assert weights(wild.out) == weights(good.out)


@pytest.mark.parametrize(
    ("main", "config"),
    [
        (progressive.main, SELF_PLAY),
        (progressive.main, FEEDBACK),
        (progressive.main, RANKED),
        (grpo.main, SHORT),
        (grpo.main, {**SHORT, "ranker": 1.0}),
        (listwise.main, LISTWISE),
    ],
)
@pytest.mark.parametrize("softly", [True, False])
def test_a_stage_that_was_killed_and_started_again_ends_with_the_bits_of_a_straight_one(
    spec: StageSpec,
    ranked: StageSpec,
    main: Callable[[StageSpec], StageResult],
    config: dict[str, Any],
    softly: bool,
) -> None:
    straight = named(replace(spec, models=ranked.models), "stage", config)
    killed = replace(straight, out=str(straight.out_dir.with_name("killed")))
    run_stage(straight, main)
    with killed_in_step(4, softly=softly), pytest.raises(Preempted if softly else Killed):
        run_stage(killed, main)
    assert not (killed.out_dir / "result.json").exists()
    run_stage(killed, main)
    result, expected = (json.loads((one.out_dir / "result.json").read_text()) for one in (killed, straight))
    assert result["resumed_from"] > 0 and expected["resumed_from"] is None
    assert result["metrics"] == expected["metrics"]
    assert weights(killed.out) == weights(straight.out)
    assert logged(killed, "loss") == logged(straight, "loss")


def test_grpo_learns_to_recommend_what_was_taken(good: StageSpec) -> None:
    rewards, found = logged(good, "reward"), metrics(good)
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])
    assert found["rounds"] == len(rewards) == 24
    assert found["after"] > found["before"] + 0.2 and found["accepted"] == 1.0


def test_grpo_hands_on_its_first_weights_where_no_later_ones_are_better(good: StageSpec) -> None:
    wild = after(named(good, "wild_grpo", {**GRPO, "policy": {**POLICY, "rounds": 4, "learning_rate": 0.3}}), good)
    result = grpo.main(wild)
    assert result.metrics["best_round"] == 0.0 and result.metrics["accepted"] == 1.0
    assert weights(wild.out) == weights(good.out)


def test_what_a_stage_knows_of_the_model_that_it_hands_on_is_not_measured_again(
    good: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = after(named(good, "below", FEEDBACK), good)
    progressive.main(below)
    measured = list[str]()
    for name in ("gains", "valid_id_rate"):
        real = getattr(Validation, name)
        monkeypatch.setattr(Validation, name, lambda self, name=name, real=real: measured.append(name) or real(self))
    left_out = progressive.main(after(named(good, "few", {**FEEDBACK, "choice": {"least": 5}}), below))
    assert measured == [] and left_out.metrics["before"] == left_out.metrics["after"] > 0
    trained = progressive.main(after(named(good, "once", {**FEEDBACK, "loop": {**LOOP, "epochs": 1}}), below))
    # After the one epoch, and of what it ends with where that is not the start.
    assert measured == ["gains"] + ([] if trained.metrics["unmoved"] else ["gains", "valid_id_rate"])
    model, items = load(below, below.out)
    asked = draw_examples(of_subset(read_samples(below, "time"), "valid"), items, 20, OPEN["samples"], below.seed)
    assert trained.metrics["before"] == Validation(model, items, asked).ndcg()


@pytest.mark.parametrize(
    ("main", "config"),
    [(progressive.main, RANKED), (grpo.main, {**SHORT, "ranker": 1.0}), (listwise.main, LISTWISE)],
)
def test_without_a_ranker_a_stage_that_asks_one_is_left_out_before_anything_is_measured(
    spec: StageSpec,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[StageSpec], StageResult],
    config: dict[str, Any],
) -> None:
    monkeypatch.setattr(Validation, "gains", lambda self: pytest.fail("measured"))
    stage = named(spec, "stage", config)
    run_stage(stage, main)
    result = json.loads((stage.out_dir / "result.json").read_text())
    assert result["left_out"] == record(stage)["reason"] == "no ranker has been trained yet"
    onward = after(named(spec, "onward", SELF_PLAY), stage)
    run_stage(onward, progressive.main)
    assert record(onward)["reason"] == "it needs stage, which was left out"


def test_the_ranker_chooses_what_is_rejected_and_the_policy_learns_to_prefer_the_truth(ranked: StageSpec) -> None:
    stage = named(ranked, "stage", {**RANKED, "loop": {**LOOP, "epochs": 8, "patience": 8}})
    result = progressive.main(stage)
    assert result.metrics["preferences"] > 30 and result.metrics["accepted"] == 1.0
    assert logged(stage, "reward_margin")[-1] > logged(stage, "reward_margin")[0] + 0.2
    other = named(ranked, "other", {**SELF_PLAY, "choice": RANKED["choice"]})
    progressive.main(other)
    assert logged(other, "rejected_log_prob")[0] != logged(stage, "rejected_log_prob")[0]


def test_the_rankers_reward_is_paid_only_where_it_has_a_weight(ranked: StageSpec) -> None:
    paid, plain = named(ranked, "paid", {**SHORT, "ranker": 0.5}), named(ranked, "plain", SHORT)
    for stage in (paid, plain):
        grpo.main(stage)
    assert logged(paid, "reward/ranker")[0] > 0.0 and not logged(plain, "reward/ranker")
    assert logged(paid, "reward/hit")[0] == logged(plain, "reward/hit")[0]
    assert weights(paid.out) != weights(plain.out)


def test_list_level_sft_learns_what_the_ranker_puts_first(ranked: StageSpec) -> None:
    stage = named(ranked, "stage", {**LISTWISE, "loop": {**LISTWISE["loop"], "epochs": 8, "patience": 8}})
    result = listwise.main(stage)
    # 30 ends of sequences, and of 30 histories those that are not empty; where nothing is likely there is no list.
    assert 30.0 < result.metrics["lists"] <= result.metrics["asked"] < 60.0
    first, last = (logged(stage, "loss")[place] - logged(stage, "entropy")[place] for place in (0, -1))
    assert 0.0 < last < 0.8 * first
    assert result.metrics["accepted"] == 1.0 and weights(stage.out) != weights(ranked.artifacts["sft"])
