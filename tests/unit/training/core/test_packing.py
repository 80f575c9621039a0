"""Packing loses no token, and samples of one row do not see each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.loop import NextToken
from training.core.masks import block_causal
from training.core.packing import IGNORED, Sample, Samples, collate, plan_rows


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(0, 5))
def test_every_sample_is_in_exactly_one_row_and_no_row_is_too_long(lengths: list[int], seed: int) -> None:
    rows = plan_rows(lengths, 20, (seed, 0))
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(sum(lengths[sample] for sample in row) <= 20 for row in rows)


def test_the_order_depends_on_the_seed_and_the_epoch_only() -> None:
    lengths = [3] * 50
    assert plan_rows(lengths, 9, (1, 0)) == plan_rows(lengths, 9, (1, 0))
    assert plan_rows(lengths, 9, (1, 0)) != plan_rows(lengths, 9, (1, 1))


def test_rows_are_packed_tightly() -> None:
    lengths = [1 + n % 13 for n in range(500)]
    assert len(plan_rows(lengths, 64, (0, 0))) == math.ceil(sum(lengths) / 64)


def test_rows_of_long_and_of_short_samples_come_mixed() -> None:
    rows = plan_rows([30] * 20 + [1] * 640, 32, (0, 0))
    sizes = [len(row) for row in rows]
    assert sizes != sorted(sizes) and sizes != sorted(sizes, reverse=True)


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(DataError, match="21 tokens, a row 20"):
        plan_rows([4, 21], 20, None)


TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)


@given(st.lists(st.builds(Sample, TOKENS, TOKENS), max_size=6), st.lists(st.integers(0, 5), max_size=6))
def test_samples_in_one_array_are_the_samples_that_went_in(rows: list[Sample], order: list[int]) -> None:
    found, places = Samples.of(rows), np.array([place for place in order if place < len(rows)], dtype=np.int64)
    assert list(found) == rows and list(found[1:3]) == rows[1:3]
    assert list(found[places]) == [rows[place] for place in places]
    assert list(Samples.joined([found, found[places]])) == [*rows, *(rows[place] for place in places)]


def test_a_hand_worked_row_learns_responses_only() -> None:
    batch = collate([[Sample((1, 2), (3, 4)), Sample((5,), (6,))]], width=8, pad=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
    assert batch.targets.tolist() == [[IGNORED, 3, 4, IGNORED, 6, IGNORED, IGNORED, IGNORED]]
    assert (batch.learnt, batch.useful) == (3, 6)


def test_prompts_are_learnt_too_when_asked_for() -> None:
    batch = collate([[Sample((1, 2), (3, 4)), Sample((5,), (6,))]], width=7, pad=0, response_only=False)
    assert batch.targets.tolist() == [[2, 3, 4, IGNORED, 6, IGNORED, IGNORED]]


def test_the_block_mask_is_causal_within_a_sample_and_closed_between_samples() -> None:
    assert block_causal(torch.tensor([[1, 1, 2]])).int().tolist() == [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]


def test_the_loss_of_packed_samples_is_the_sum_of_their_losses_alone(
    model: PreTrainedModel, samples: list[Sample]
) -> None:
    loss, model = NextToken().loss, model.eval()
    rows = [[samples[i] for i in row] for row in plan_rows([len(s) for s in samples], 32, None)]
    with torch.no_grad():
        packed = float(loss(model, collate(rows, 32, pad=0))[0])
        alone = [float(loss(model, collate([[sample]], len(sample), pad=0))[0]) for sample in samples]
        plain = [float(_reference_loss(model, sample)) for sample in samples]
    assert packed == pytest.approx(sum(alone), rel=1e-5)
    assert alone == pytest.approx(plain, rel=1e-5)


def _reference_loss(model: PreTrainedModel, sample: Sample) -> torch.Tensor:
    """The model's own loss, with prompt labels ignored, times the number of response tokens."""
    ids = torch.tensor([sample.prompt + sample.response])
    labels = torch.tensor([(IGNORED,) * len(sample.prompt) + sample.response])
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss * len(sample.response)
