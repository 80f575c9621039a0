"""What the next-token loss can do beside the plain one: noise on the embeddings, smoothed labels, weighed samples."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.neftune import activate_neftune
from transformers.trainer_pt_utils import LabelSmoother

from tests.unit.training.alignment_runs import LOOP, read
from tests.unit.training.peers import gradients, relative_gap, tiny_qwen
from training.core.errors import DataError
from training.core.loop import Loop, NextToken
from training.core.neftune import noisy_embeddings
from training.core.packing import IGNORED, Sample, Samples, collate
from training.core.preference import PreferenceObjective

SAMPLES = [Sample((5, 9, 7), (11, 2)), Sample((8,), (12, 13, 2)), Sample((5, 6), (14, 2))]


def loss_of(objective: NextToken, samples: list[Sample], model: PreTrainedModel | None = None) -> tuple[float, Tensor]:
    """The mean loss of the samples in one row, and its gradient."""
    model, batch = model or tiny_qwen(seed=0).train(), collate([samples], 20, pad=0)
    value, _ = objective.loss(model, batch)
    (value / batch.learnt).backward()
    return float(value.detach()) / batch.learnt, gradients(model)


# Labels


def test_smoothed_labels_cost_what_they_do_in_transformers() -> None:
    model = tiny_qwen(seed=0)
    ids = torch.tensor([[5, 9, 7, 11, 2]])
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 11, 2]])
    expected = LabelSmoother(epsilon=0.1)({"logits": model(ids).logits}, labels, shift_labels=True)
    assert loss_of(NextToken(label_smoothing=0.1), SAMPLES[:1])[0] == pytest.approx(expected.item(), rel=1e-5)


def test_a_model_that_knows_nothing_loses_the_same_however_smooth_the_labels_are() -> None:
    model = tiny_qwen(seed=0)
    torch.nn.init.zeros_(model.get_input_embeddings().weight)  # tied to the head: all logits are 0
    for smoothing in (0.0, 0.3):
        assert loss_of(NextToken(label_smoothing=smoothing), SAMPLES, model)[0] == pytest.approx(math.log(32))


# Weights


def test_a_sample_counts_as_often_as_it_weighs() -> None:
    twice = [replace(SAMPLES[0], weight=2.0), *SAMPLES[1:]]
    value, gradient = loss_of(NextToken(), twice)
    expected, repeated = loss_of(NextToken(), [SAMPLES[0], *SAMPLES])
    assert value == pytest.approx(expected, rel=1e-5)
    assert relative_gap(gradient, repeated) < 1e-5
    assert value != pytest.approx(loss_of(NextToken(), SAMPLES)[0], rel=1e-3)


def test_weights_that_are_all_alike_change_nothing() -> None:
    lighter = [replace(sample, weight=0.3) for sample in SAMPLES]
    assert loss_of(NextToken(), lighter)[0] == pytest.approx(loss_of(NextToken(), SAMPLES)[0], rel=1e-6)


def test_the_loss_is_divided_by_the_weights_of_the_learnt_tokens() -> None:
    batch = collate([[Sample((1, 2), (3, 4), 0.5), Sample((5,), (6,), 2.0)]], width=8, pad=0)
    assert batch.weights.tolist() == [[0.0, 0.5, 0.5, 0.0, 2.0, 0.0, 0.0, 0.0]]
    assert (batch.learnt, batch.useful) == (3.0, 6)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(DataError, match="a sample weighs"):
        Sample((1,), (2,), weight)


def test_a_weighed_sample_is_the_same_when_it_comes_out_of_the_array() -> None:
    weighed = [replace(sample, weight=0.1 * n) for n, sample in enumerate(SAMPLES, start=1)]
    found = Samples.of(weighed)
    assert list(found) == weighed
    assert list(Samples.joined([found[1:], found])) == weighed[1:] + weighed


# Noise


def test_noise_on_the_embeddings_is_that_of_transformers_where_a_sample_fills_its_row() -> None:
    batch = collate([SAMPLES[:1]], 5, pad=0)
    ours, peer = tiny_qwen(seed=0).train(), tiny_qwen(seed=0).train()
    hook = activate_neftune(peer, 5.0)
    values = []
    for objective, model in ((NextToken(neftune_alpha=5.0), ours), (NextToken(), peer)):
        torch.manual_seed(3)
        value, _ = objective.loss(model, batch)
        value.backward()
        values.append(value.item())
    hook.remove()
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert relative_gap(gradients(ours), gradients(peer)) < 1e-5
    assert values[0] != pytest.approx(loss_of(NextToken(), SAMPLES[:1])[0] * 2, rel=1e-3)


def test_noise_is_bounded_by_the_length_of_a_tokens_own_sample_and_padding_has_none() -> None:
    model, segments = tiny_qwen(seed=0), torch.tensor([[1, 1, 1, 1, 2, 0], [1, 1, 2, 2, 2, 2]])
    ids = torch.full_like(segments, 7)
    embed = model.get_input_embeddings()
    plain = embed(ids)
    seen = []
    for _ in range(200):
        with noisy_embeddings(model, segments, 5.0):
            seen.append((embed(ids) - plain).abs().amax(dim=-1))
    largest = torch.stack(seen).amax(dim=0)
    # alpha / sqrt(L d), d = 16
    bounds = torch.tensor([[0.625] * 4 + [1.25, 0.0], [5 / math.sqrt(32)] * 2 + [0.625] * 4])
    assert (largest <= bounds + 1e-6).all()
    assert (largest >= 0.98 * bounds).all()
    assert torch.equal(embed(ids), plain)


def test_a_model_that_is_not_in_training_has_no_noise() -> None:
    noisy = loss_of(NextToken(neftune_alpha=5.0), SAMPLES, tiny_qwen(seed=0).eval())
    assert noisy[0] == loss_of(NextToken(), SAMPLES)[0]


# In a training


def run(folder: Path, **settings: float) -> list[dict[str, float]]:
    folder.mkdir()
    config = replace(LOOP, epochs=3, **settings)  # type: ignore[arg-type]
    loop: Loop[Sample] = Loop(tiny_qwen(seed=0), 0, config, 5, folder, "run")
    loop.train(lambda epoch: SAMPLES, SAMPLES)
    return read(folder)


def test_noise_and_smoothing_are_of_the_training_only_and_the_same_for_a_seed(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    smooth, noisy, again = (
        run(tmp_path / name, **how)
        for name, how in (
            ("smooth", {"label_smoothing": 0.2, "learning_rate": 0.0}),
            ("noisy", {"neftune_alpha": 5.0}),
            ("again", {"neftune_alpha": 5.0}),
        )
    )
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (plain, smooth, noisy, again)]
    assert losses[1][0] != pytest.approx(losses[0][0], rel=1e-4)
    assert losses[2][0] != pytest.approx(losses[0][0], rel=1e-4)
    assert losses[2] == losses[3]
    # Without a step of any length the validation loss is that of the start, and plain.
    valid = [line["valid_loss"] for line in smooth if "valid_loss" in line]
    assert valid[0] == pytest.approx(losses[0][0], rel=1e-5)


def test_they_are_refused_where_something_else_is_learnt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="something else than the next token"):
        Loop(tiny_qwen(seed=0), 0, replace(LOOP, neftune_alpha=5.0), 5, tmp_path, "run", PreferenceObjective())
