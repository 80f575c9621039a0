"""A loss, gradient or evaluation that is not finite ends a run before the weights have it, and before it is saved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.training.alignment_runs import LOOP, POLICY, optimise, prefer, read, sampled
from tests.unit.training.peers import tiny_qwen
from training.core.checkpoint import places, read_cursor, trainable
from training.core.errors import Diverged
from training.core.learner import Batch, Loss
from training.core.loop import Loop, NextToken
from training.core.packing import Sample
from training.core.policy.groups import Group, Round
from training.core.preference import PreferenceObjective
from training.core.steps import Steps


@dataclass(frozen=True)
class Poisoned:
    """An objective whose loss is spoiled by `poison` at the n-th time that it is asked for one to learn from."""

    real: Any
    poison: Callable[[Tensor], Tensor]
    at: int
    asked: list[None]

    def collate(self, *given: Any) -> Any:
        return self.real.collate(*given)

    def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
        value, terms = self.real.loss(model, batch)
        if torch.is_grad_enabled():
            self.asked.append(None)
        return (self.poison(value) if len(self.asked) == self.at else value), terms


def infinite_slope(value: Tensor) -> Tensor:
    """The loss as it is, with a gradient that is not finite."""
    return value + (value - value.detach()).clamp(min=0).sqrt()


POISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "loss": lambda value: value * math.nan,
    "infinite loss": lambda value: value + math.inf,
    "gradient norm": infinite_slope,
}
SAMPLES = [Sample((5, 6 + n % 7), (20 + n % 3, 2)) for n in range(12)]


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("learnt", ["next_token", "preferences"])
def test_a_step_that_diverges_changes_neither_weights_nor_checkpoint(tmp_path: Path, learnt: str, poison: str) -> None:
    real = NextToken() if learnt == "next_token" else PreferenceObjective()
    objective, model = Poisoned(real, POISONS[poison], 5, []), tiny_qwen(seed=0)
    config = replace(LOOP, checkpoint_steps=2, rows=1, row_tokens=16)
    seen = weights_before_each_step(model)
    with pytest.raises(Diverged, match=r"(?s)where: step 5 of .*why: .*do: ") as caught:
        if learnt == "next_token":
            Loop(model, 0, config, 5, tmp_path, "run", objective).train(lambda epoch: SAMPLES, SAMPLES)
        else:
            prefer(tmp_path, objective, config=config, model=model)
    assert caught.value.exit_code == 65
    assert caught.value.what.startswith(f"the {poison.removeprefix('infinite ')} is")
    assert all(torch.equal(weight, seen[name]) for name, weight in trainable(model).items())
    assert (read_cursor(places(tmp_path)[0]) or {})["step"] == 4
    assert read(tmp_path)[-1]["step"] == 4


def weights_before_each_step(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights as they were when the model last computed."""
    seen: dict[str, Tensor] = {}
    model.get_decoder().register_forward_pre_hook(
        lambda *_: seen.update({n: w.clone() for n, w in trainable(model).items()})
    )
    return seen


def test_an_advantage_that_is_not_a_number_does_not_reach_the_policy(tmp_path: Path) -> None:
    model, rounds = tiny_qwen(seed=0), [0]
    seen = weights_before_each_step(model)

    def advantage(groups: Sequence[Group], round: Round) -> list[Tensor]:
        rounds[0] += 1
        return [torch.full((len(group.responses),), math.nan if rounds[0] == 3 else 1.0) for group in groups]

    with pytest.raises(Diverged, match="the loss is nan"):
        optimise(tmp_path, replace(sampled(), advantage=advantage), replace(POLICY, checkpoint_rounds=1), model=model)
    assert all(torch.equal(weight, seen[name]) for name, weight in trainable(model).items())
    assert (read_cursor(places(tmp_path)[0]) or {})["round"] == 2


def test_an_evaluation_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="the eval value is nan"):
        optimise(tmp_path, sampled(), replace(POLICY, rounds=1), eval_fn=lambda: math.nan)


def test_weights_that_only_the_validation_shows_to_be_broken_are_not_saved(tmp_path: Path) -> None:
    class Blind(NextToken):
        def loss(self, model: Any, batch: Any) -> Loss:
            value, terms = super().loss(model, batch)
            return (value if torch.is_grad_enabled() else value * math.nan), terms

    loop: Loop[Sample] = Loop(tiny_qwen(seed=0), 0, LOOP, 5, tmp_path, "run", Blind())
    with pytest.raises(Diverged, match="the validation loss is nan"):
        loop.train(lambda epoch: SAMPLES, SAMPLES)
    assert not any(place.exists() for place in places(tmp_path))


def test_numbered_steps_stop_at_a_loss_that_is_not_finite_and_keep_the_checkpoint_before(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    steps = Steps(tmp_path, "run", layer, torch.optim.AdamW(layer.parameters()), checkpoint_steps=2)
    with pytest.raises(Diverged, match=r"(?s)the loss is inf.*tokenizer, step 4"):
        steps.run(8, "tokenizer", lambda number: math.inf if number == 3 else 0.5)
    assert (read_cursor(places(tmp_path)[0]) or {})["done"] == 2
