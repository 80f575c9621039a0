"""The dual tokenizer's parts by their equations: losses, quantizer, phases, the rule of choice, Sinkhorn."""

from __future__ import annotations

import math
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.generative_rec.interactions import Interactions
from training.generative_rec.quantizers import QUANTIZERS
from training.generative_rec.rq_vae import ResidualVAE, RQVAESchedule
from training.generative_rec.scid.choice import Check, choose, may_win
from training.generative_rec.scid.collisions import SinkhornConfig, collision_rate, sinkhorn, spread
from training.generative_rec.scid.model import DualTokenizer, ScConfig, ScEncoder, Side, u2i_loss
from training.generative_rec.scid.report import covisit_report, neighbour_report, side_report
from training.generative_rec.scid.residual_quantizer import QuantizerConfig, ResidualQuantizer
from training.generative_rec.scid.training import TokenizerData, TokenizerTraining, TrainingConfig, Weights, codes_of

SMALL = QuantizerConfig(levels=2, codes=4, width=3, hidden=(6,))


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def identity(books: list[list[list[float]]]) -> ResidualQuantizer:
    """A quantizer whose encoder and decoder change nothing, with these codebooks."""
    found = torch.tensor(books)
    levels, codes, width = found.shape
    quantizer = ResidualQuantizer(width, QuantizerConfig(levels, codes, width, hidden=()), rows=8 * codes)
    with torch.no_grad():
        quantizer.books.copy_(found)
        for layers in (quantizer.encoder, quantizer.decoder):
            layers.start(torch.eye(width), torch.zeros(width))
    return quantizer


def test_the_u2i_loss_is_its_equation_and_skips_what_the_user_touched() -> None:
    users, items = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    negatives = torch.tensor([[1.0, 5.0], [9.0, 0.0]])
    # positive 2, negative 1; the other negative is the user's own: -ln(e^2 / (e^2 + e^1)) = 0.3133
    loss = u2i_loss(users, items, negatives, torch.tensor([[False, True]]))
    assert float(loss) == pytest.approx(0.313262, rel=1e-5)


def test_the_quantizer_loss_is_its_equation_on_hand_worked_numbers() -> None:
    quantizer = identity([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    found = quantizer(torch.tensor([[5.0, 3.0]]))
    # level 1: (5, 3) - (4, 0) = (1, 3), squared 10; level 2: (1, 3) - (0, 2) = (1, 1), squared 2
    assert found.codes.tolist() == [[1, 1]]
    assert found.residuals.tolist() == [[[5.0, 3.0], [1.0, 3.0]]]
    assert found.loss.item() == pytest.approx(2.0 + (10.0 + 2.0) / 2 * 1.25)


def test_gradients_go_where_the_stop_gradients_let_them() -> None:
    quantizer = identity([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    vectors = torch.tensor([[5.0, 3.0]], requires_grad=True)
    torch.autograd.backward(quantizer(vectors).loss)
    assert quantizer.books.grad is not None and vectors.grad is not None
    # Codebook rows: half (mean over two levels) of 2 (e - r), each from its own level only.
    assert quantizer.books.grad[0, 1].tolist() == [-1.0, -3.0]
    assert quantizer.books.grad[1, 1].tolist() == [-1.0, -1.0]
    assert quantizer.books.grad[:, 0].abs().sum() == 0
    # Vectors: 2 (x_hat - x) straight through, target stopped, and mu / 2 * 2 (r - e) of both levels.
    assert vectors.grad.tolist() == [[-2.0 + 0.25 * 2.0, -2.0 + 0.25 * 4.0]]


def test_codes_are_the_nearest_rows_of_the_residuals() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(5, SMALL, rows=20)
    quantizer.start(random(20, 5), torch.Generator().manual_seed(1))
    codes, residuals = quantizer.encode(random(7, 5, seed=2))
    latent = quantizer.encoder(random(7, 5, seed=2)).detach()
    assert torch.equal(residuals[:, 0], latent)
    for level in range(2):
        distance = (residuals[:, level].unsqueeze(1) - quantizer.books[level]).square().sum(dim=2)
        assert torch.equal(codes[:, level], distance.argmin(dim=1))
    assert torch.allclose(residuals[:, 1], latent - quantizer.books[0][codes[:, 0]])


def test_k_means_starts_each_level_in_the_middle_of_its_groups() -> None:
    quantizer = identity([[[0.0, 0.0]] * 2] * 2)
    groups = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0]])
    quantizer.start(groups, torch.Generator().manual_seed(0))
    # Around the mean (5, 0.5), on the axes x and y; axes have no sign of their own.
    assert sorted(quantizer.books[0].abs().tolist()) == [[5.0, 0.0], [5.0, 0.0]]
    assert sorted(quantizer.books[1].abs().tolist()) == [[0.0, 0.5], [0.0, 0.5]]
    assert torch.allclose(quantizer.rebuilt(quantizer.encode(groups)[0]), groups, atol=1e-5)


def test_codes_that_nothing_chooses_come_back_at_residuals_of_their_level_and_others_stay() -> None:
    quantizer = identity([[[0.0, 0.0], [90.0, 0.0]], [[0.0, 0.0], [0.0, 90.0]]])
    found = quantizer(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    assert quantizer.revive(found.residuals, torch.Generator().manual_seed(0)) == 2
    assert quantizer.books[:, 0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert all(row in [[1.0, 1.0], [2.0, 2.0]] for row in quantizer.books[:, 1].tolist())
    again = quantizer(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    assert 1 in again.codes[:, 0]


def test_a_small_catalogue_has_no_more_codes_than_it_can_fill() -> None:
    assert ResidualQuantizer(5, SMALL, rows=9).books.shape == (2, 3, 3)


def test_both_parts_of_the_input_weigh_alike_however_long_their_vectors_are() -> None:
    encoder = ScEncoder((100 + 50 * random(40, 6), 0.01 * random(40, 2, seed=1)), ScConfig((), 3))
    scaled = (
        torch.cat([100 + 50 * random(40, 6), 0.01 * random(40, 2, seed=1)], dim=1) - encoder.shift
    ) * encoder.scale
    assert scaled[:, :6].norm(dim=1).mean() == pytest.approx(1.0, rel=1e-4)
    assert scaled[:, 6:].norm(dim=1).mean() == pytest.approx(1.0, rel=1e-4)


def test_sc_embeddings_start_as_a_multiple_of_the_text_and_both_sides_alike() -> None:
    parts = random(40, 6), random(40, 2, seed=1)
    sides = [Side(parts, ScConfig((8,), start=3.0), SMALL) for _ in range(2)]
    text = parts[0] - parts[0].mean(dim=0)
    assert torch.allclose(sides[0].embed(torch.cat(parts, dim=1)), 3 * text / text.norm(dim=1).mean(), atol=1e-5)
    both = DualTokenizer(*sides)
    assert torch.equal(both.user.encoder.layers.bent[0].weight, both.item.encoder.layers.bent[0].weight)


@pytest.fixture
def training() -> TokenizerTraining:
    return tokenizer_training()


def tokenizer_training(**changes: Any) -> TokenizerTraining:
    """An untrained tokenizer of random inputs; `changes` of its config."""
    users, items = random(30, 5), random(20, 5, seed=1)
    events = torch.arange(30).repeat_interleave(4)
    known = Interactions(
        tuple(f"u{n}" for n in range(30)), tuple(f"i{n}" for n in range(20)), events,
        torch.randint(20, (120,), generator=torch.Generator().manual_seed(3)), torch.arange(0, 124, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    model = DualTokenizer(Side((users,), ScConfig((8,), 6), SMALL), Side((items,), ScConfig((8,), 6), SMALL))
    data = TokenizerData(
        users, items, users, known.users, torch.zeros(120, 1), (5,), known, (torch.arange(30), torch.arange(30) % 20)
    )  # fmt: skip
    config = TrainingConfig(
        steps=24, batch_size=32, negatives=8, check_steps=4, revive_steps=3, switch_share=0.5, checkpoint_steps=100,
        **changes,
    )  # fmt: skip
    return TokenizerTraining(model, data, config, seed=5)


def test_the_first_phase_settles_the_space_and_leaves_quantizers_to_the_last_bit(training: TokenizerTraining) -> None:
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    for number in range(5):
        training.step(number, second=False)
    after = training.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if "quantizer" in name)
    assert all(not torch.equal(after[name], before[name]) for name in after if "encoder.layers" in name and "quantizer" not in name)  # fmt: skip  # noqa: E501


def test_the_second_phase_trains_everything_and_codes_use_the_encoder_as_training_does(
    training: TokenizerTraining,
) -> None:
    training.start_codebooks()
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    parts = training.step(0, second=True)
    assert parts["loss"] == pytest.approx(0.1 * parts["u2i"] + parts["rq_user"] + parts["rq_item"], rel=1e-5)
    after = training.model.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in after if name.endswith(("books", "weight")))
    side = training.model.item
    inputs = random(20, 5, seed=1)
    assert torch.equal(codes_of(side, inputs)[0], side.quantizer(side.encoder(inputs)).codes)


def test_alpha_of_the_second_phase_does_not_move_the_encoders_as_only_one_loss_reaches_them() -> None:
    """AdamW divides by the size of the gradients: a tenth of every one is the same step."""
    moved = []
    for alpha in (1.0, 0.1):
        run = tokenizer_training(phase_2=Weights(alpha, 1.0), max_grad_norm=1e9)
        run.start_codebooks()
        start = torch.cat([weight.detach().flatten().clone() for weight in run.model.item.encoder.parameters()])
        for number in range(20):
            run.step(number, second=True)
        moved.append(torch.cat([weight.detach().flatten() for weight in run.model.item.encoder.parameters()]) - start)
    assert moved[1].norm() == pytest.approx(float(moved[0].norm()), rel=0.02)
    assert (moved[1] - moved[0]).norm() < 0.2 * moved[0].norm()  # a tenth of the rate would leave 0.9


def test_an_item_is_taken_out_of_its_users_input_while_the_pair_is_learnt() -> None:
    """Two parts, a mean of 2 items and weights of 3 to 1; the second user has one item only and keeps it."""
    items = torch.tensor([[2.0, 0.0, 8.0], [0.0, 4.0, 4.0]])
    known = Interactions(
        ("u", "v"), ("a", "b"), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.tensor([0, 2, 3])
    )
    users = torch.tensor([[1.0, 2.0, 7.0], [0.0, 4.0, 4.0]])
    shares = torch.tensor([[0.5, 0.75], [0.5, 0.25], [1.0, 1.0]])
    data = TokenizerData(
        users, items, users, known.users, shares, (2, 1), known, (torch.tensor([0]), torch.tensor([0]))
    )
    without, of = data.pairs(torch.arange(3), leave_out=True)
    assert torch.equal(without, torch.stack([items[1], items[0], items[1]]))
    assert torch.equal(of, items[known.items])
    assert torch.equal(data.pairs(torch.arange(3), leave_out=False)[0], users[known.users])


def test_the_phases_switch_at_their_share_of_the_steps_or_when_the_loss_stands_still(
    training: TokenizerTraining, tmp_path: Path
) -> None:
    _, switch, _ = training.train(tmp_path / "share", "run")
    assert switch == 12
    for patience, expected in ((1, 8), (2, 12)):
        training, losses = tokenizer_training(patience=patience), chain([2.0], repeat(3.0))
        with patch.object(training, "valid_loss", partial(next, losses)):
            _, switch, _ = training.train(tmp_path / f"patience-{patience}", "run")
        assert switch == expected


def test_codes_are_learnt_on_the_best_space_and_no_longer_than_a_check_could_be_kept(tmp_path: Path) -> None:
    training = tokenizer_training(patience=1)
    losses, spaces = iter([3.0, 2.0, 2.5, 2.6, 3.6, 4.6]), list[Tensor]()

    def space() -> Tensor:
        return torch.cat([weight.detach().flatten() for weight in training.model.item.encoder.parameters()])

    def measured() -> float:
        spaces.append(space())
        return next(losses)

    with (
        patch.object(training, "valid_loss", measured),
        patch.object(training, "start_codebooks", lambda: spaces.append(space())),
    ):
        chosen, switch, _ = training.train(tmp_path, "run")
    assert switch == 12 and torch.equal(spaces[3], spaces[1])
    assert chosen.step == 16 and list(losses) == [4.6]
    assert tokenizer_training(patience=1).train(tmp_path, "run") == (chosen, switch, 20)


def test_the_kept_check_collides_least_within_the_tolerance_of_the_best_loss() -> None:
    checks = [Check(1, 1.00, 0.30), Check(2, 1.04, 0.10), Check(3, 1.06, 0.01), Check(4, 1.03, 0.10)]
    assert choose(checks, 0.05) == Check(4, 1.03, 0.10)
    assert choose(checks, 0.10) == Check(3, 1.06, 0.01)


@given(st.lists(st.tuples(st.sampled_from([1.0, 1.02, 1.04, 1.2]), st.sampled_from([0.0, 0.1, 0.2])), min_size=1))
def test_checks_whose_weights_are_thrown_away_would_not_have_been_kept(values: list[tuple[float, float]]) -> None:
    kept: list[Check] = []
    for step, (loss, rate) in enumerate(values):
        kept.append(Check(step, loss, rate))
        kept = [check for check in kept if may_win(check, kept, 0.05)]
    assert choose(kept, 0.05) == choose([Check(n, *pair) for n, pair in enumerate(values)], 0.05)


CODES = st.integers(1, 60).flatmap(lambda n: st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=n))


@given(CODES, st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_sinkhorn_never_adds_collisions_and_moves_nobody_who_stands_alone(
    rows: list[tuple[int, int]], seed: int
) -> None:
    codes, book = torch.tensor(rows), random(10, 4, seed=9)
    residuals = book[codes[:, 1]] + 0.3 * random(len(rows), 4, seed=seed)
    found, _ = spread(codes, residuals, book, SinkhornConfig())
    assert torch.equal(found[:, 0], codes[:, 0])
    alone = [rows.count(row) == 1 for row in rows]
    assert torch.equal(found[alone], codes[alone])
    # What can be told apart is: ten codes for each first code, one item on each.
    room = sum(min(10, int((codes[:, 0] == first).sum())) for first in range(3))
    assert collision_rate(found) == pytest.approx(1 - room / len(rows))


def test_items_that_are_equal_in_everything_are_told_apart_too() -> None:
    codes = torch.tensor([[0, 0]] * 6)
    found, rounds = spread(codes, torch.zeros(6, 3), random(10, 3), SinkhornConfig())
    assert collision_rate(found) == 0.0
    assert rounds <= 20


def test_sinkhorn_gives_every_row_its_mass_and_no_code_more_than_one_item() -> None:
    cost = torch.rand(3, 4, 10, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])
    free = torch.ones(3, 10, dtype=torch.bool)
    free[1, :7] = False
    plan = sinkhorn(cost, real, free, SinkhornConfig(epsilon=0.05, iterations=500)).exp()
    assert torch.allclose(plan.sum(dim=2), real.float(), atol=1e-2)
    assert (plan.sum(dim=1) <= 1.01).all()
    assert plan[1, :, :7].sum() == 0


def test_two_items_that_want_one_code_are_matched_at_the_least_total_distance() -> None:
    """Greedy would give the first its nearest and leave the second far off."""
    cost = torch.tensor([[[0.0, 0.1, 1.0], [0.05, 1.0, 1.0]]])
    plan = sinkhorn(cost, torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool), SinkhornConfig())
    assert plan.argmax(dim=2).tolist() == [[1, 0]]


def clustered() -> Tensor:
    centres = torch.tensor([[8.0, 0.0], [-8.0, 0.0], [0.0, 8.0], [0.0, -8.0]]).repeat_interleave(10, dim=0)
    return centres + random(40, 2)


def built(inputs: Tensor) -> tuple[Side, Tensor]:
    torch.manual_seed(0)
    side = Side((inputs,), ScConfig((), start=1.0), QuantizerConfig(levels=2, codes=4, width=2, hidden=()))
    side.quantizer.start(side.embed(inputs), torch.Generator().manual_seed(0))
    return side, codes_of(side, inputs)[0]


def test_the_report_says_how_much_each_level_explains() -> None:
    side, codes = built(clustered())
    report = side_report(side, clustered(), codes)
    assert report["usage.level_1"] == 1.0
    assert report["perplexity.level_1"] == pytest.approx(4.0)
    assert 0.0 < report["unexplained.level_2"] < report["unexplained.level_1"] < 0.1
    assert report["reconstruction_error"] == pytest.approx(report["unexplained.level_2"], rel=1e-4)


def test_neighbours_in_codes_that_keep_groups_together_are_neighbours_in_the_input() -> None:
    side, codes = built(clustered())
    asked = torch.arange(0, 40, 3)
    good = neighbour_report(side, clustered(), codes, asked)
    mixed = neighbour_report(side, clustered(), codes[torch.randperm(40)], asked)
    # 9 of the 10 nearest are of the own group of 10, and one more is anywhere.
    assert good["neighbours.level_1"] > 0.85
    assert mixed["neighbours.level_1"] < 0.5


def test_covisited_items_are_found_where_codes_put_them_together() -> None:
    side, codes = built(clustered())
    users = torch.arange(4).repeat_interleave(10)
    known = Interactions(
        ("a", "b", "c", "d"), tuple(map(str, range(40))), users, torch.arange(40), torch.arange(0, 44, 10)
    )
    report = covisit_report(side, clustered(), codes, known, torch.arange(40))
    assert report["covisit.codes"] > 0.85
    assert covisit_report(side, clustered(), codes[torch.randperm(40)], known, torch.arange(40))["covisit.codes"] < 0.5


def test_the_rq_vae_baseline_separates_groups_and_is_the_same_for_a_seed() -> None:
    found = []
    for _ in range(2):
        quantizer = ResidualVAE(2, 4, 2, 7, RQVAESchedule(hidden=(8,), steps=60))
        quantizer.fit(clustered())
        found.append(quantizer.encode(clustered()))
    assert (found[0] == found[1]).all()
    groups = [set(found[0][10 * n : 10 * n + 10, 0].tolist()) for n in range(4)]
    assert len(set.union(*groups)) >= 3
    assert set(quantizer.state()) >= {"codebook.0", "codebook.1", "mean"}
    assert isinstance(QUANTIZERS["rq_vae"](2, 4, 2, 7), ResidualVAE)


def test_the_rq_vae_starts_as_rq_k_means_and_learns_what_no_straight_line_holds() -> None:
    """Points of a circle through one number: a straight map keeps half of their variance."""
    turn = torch.linspace(0.0, 2 * math.pi, 201)[:-1]
    circle, errors = torch.stack([turn.cos(), 1.1 * turn.sin()], dim=1), []
    for count in (0, 400):
        quantizer: Any = ResidualVAE(2, 8, 1, 7, RQVAESchedule(hidden=(32,), steps=count, learning_rate=5e-3))
        quantizer.fit(circle)
        rebuilt = quantizer._network.rebuilt(torch.from_numpy(quantizer.encode(circle)).long())
        errors.append(float((rebuilt - circle * quantizer._scale).square().sum(dim=1).mean()))
    assert errors[0] == pytest.approx(0.45, abs=0.05)
    assert errors[1] < 0.8 * errors[0]
