"""InfoNCE: equation 4 by hand, and micro-batches that learn to the bit of rounding what one large batch learns."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.unit.training.language_kit import tiny_llama
from tests.unit.training.peers import gradients, relative_gap
from training.core.contrastive import InBatchNegatives, Pair, PairBatch
from training.core.dropout import add_dropout
from training.core.learner import Learner
from training.core.loop import Loop, LoopConfig

PAIRS = [Pair((5 + n, 60, 7)[: 1 + n % 3], (80 + n % 5, 81 + n)[: 1 + n % 2], key=n % 5) for n in range(8)]
OBJECTIVE = InBatchNegatives(0.1)


def batches_of(pairs: Sequence[Pair], count: int) -> list[PairBatch]:
    size = len(pairs) // count
    return [
        OBJECTIVE.collate([pairs[n : n + size // 2], pairs[n + size // 2 : n + size]], 24, 2)
        for n in range(0, len(pairs), size)
    ]


@torch.no_grad()
def vector(model: PreTrainedModel, text: tuple[int, ...]) -> Tensor:
    state = model.model(torch.tensor([text])).last_hidden_state[0, -1]
    return state / state.norm()


def test_the_loss_is_that_of_equation_4_and_targets_of_ones_own_key_are_no_negatives() -> None:
    targets = torch.tensor([[0.6, 0.8, 0], [0, 1, 0], [0.8, 0, 0.6]])
    losses = OBJECTIVE.losses(torch.eye(3), targets, torch.tensor([7, 8, 7]))
    # Cosines of the first anchor: 0.6 to its own target, 0 to the second; the third (0.8) has its key.
    first = -math.log(math.exp(6) / (math.exp(6) + math.exp(0)))
    second = -math.log(math.exp(10) / (math.exp(8) + math.exp(10) + math.exp(0)))
    third = -math.log(math.exp(6) / (math.exp(6) + math.exp(0)))
    assert losses.tolist() == pytest.approx([first, second, third], abs=1e-5)


def test_vectors_are_the_last_tokens_of_each_text_alone() -> None:
    model = tiny_llama()
    found = OBJECTIVE.vectors(model, batches_of(PAIRS, 1)[0])
    texts = [pair.anchor for pair in PAIRS] + [pair.target for pair in PAIRS]
    assert torch.allclose(found, torch.stack([vector(model, text) for text in texts]), atol=1e-5)


class Steps:
    """The gradients that a step would follow: the learner's optimizer is not asked."""

    def __init__(self, folder: Path, model: PreTrainedModel) -> None:
        self.model = model
        self.learner: Learner[PairBatch] = Learner(
            model, OBJECTIVE.loss, folder, "run", weight_decay=0.0, max_grad_norm=1e9, prepare=OBJECTIVE.prepared
        )
        self.learner._optimizer = self  # type: ignore[assignment]
        self.param_groups: list[dict[str, Any]] = [{}]
        self.found = torch.zeros(0)

    def step(self) -> None:
        self.found = gradients(self.model).clone()

    def zero_grad(self) -> None:
        self.model.zero_grad()

    def of(self, batches: list[PairBatch]) -> tuple[Tensor, float]:
        torch.manual_seed(5)
        return self.found, self.learner.step(batches, 0.0, 1)["loss"]


def plain(model: PreTrainedModel, batch: PairBatch) -> tuple[Tensor, float]:
    """One batch with one graph through everything."""
    model.zero_grad()
    torch.manual_seed(5)
    anchors, targets = OBJECTIVE.vectors(model.train(), batch).view(2, len(PAIRS), -1)
    loss = OBJECTIVE.losses(anchors, targets, batch.keys).mean()
    loss.backward()
    return gradients(model).clone(), float(loss.detach())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_micro_batches_have_the_gradients_and_the_loss_of_one_batch(tmp_path: Path, count: int) -> None:
    expected, loss = plain(tiny_llama(), batches_of(PAIRS, 1)[0])
    steps = Steps(tmp_path, tiny_llama())
    _, found_loss = steps.of(batches_of(PAIRS, count))
    assert relative_gap(steps.found, expected) < 1e-6
    assert found_loss == pytest.approx(loss, abs=1e-6)


def test_negatives_of_the_own_micro_batch_alone_would_learn_something_else(tmp_path: Path) -> None:
    together, apart = (Steps(tmp_path, tiny_llama()) for _ in range(2))
    together.of(batches_of(PAIRS, 2))
    apart.learner._prepare = lambda forward, batches: [OBJECTIVE.prepared(forward, [one])[0] for one in batches]
    apart.of(batches_of(PAIRS, 2))
    assert relative_gap(apart.found, together.found) > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_passes_drop_the_same_and_what_follows_goes_on_behind_them(tmp_path: Path, checkpointing: bool) -> None:
    model, masks = tiny_llama(), list[Tensor]()
    add_dropout(model, 0.5, 0.0)
    if checkpointing:
        model.activation_checkpointing_enable()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _, __, output: masks.append(output == 0))
    steps = Steps(tmp_path, model)
    steps.of(batches_of(PAIRS, 2))
    after = torch.rand(1)
    first, second = masks[:2], masks[2:]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1]) and first[0].any()
    torch.manual_seed(5)
    with torch.no_grad():
        for batch in batches_of(PAIRS, 2):
            OBJECTIVE.vectors(model, batch)
    assert torch.equal(torch.rand(1), after)


@given(st.permutations(range(8)))
def test_the_order_of_the_pairs_does_not_matter(order: list[int]) -> None:
    found = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    keys = torch.tensor([pair.key for pair in PAIRS])
    losses = OBJECTIVE.losses(*found, keys)
    assert torch.allclose(OBJECTIVE.losses(*found[:, order], keys[order]), losses[order], atol=1e-4)


def test_a_loop_learns_which_texts_belong_together(tmp_path: Path) -> None:
    config = LoopConfig(epochs=6, rows=1, row_tokens=12, accumulate=4, learning_rate=0.01, log_steps=1)
    pairs = [Pair((5 + n, 60), (80 + n,), key=n) for n in range(12)]
    model = tiny_llama()
    loop: Loop[Pair] = Loop(model, 2, config, 3, tmp_path, "run", OBJECTIVE)
    before = loop.valid_loss(pairs)
    loop.train(lambda epoch: pairs, pairs)
    anchors = torch.stack([vector(model, pair.anchor) for pair in pairs])
    targets = torch.stack([vector(model, pair.target) for pair in pairs])
    assert loop.valid_loss(pairs) < 0.5 * before
    assert ((anchors @ targets.T).argmax(dim=1) == torch.arange(12)).float().mean() > 0.8
