"""Log-probs of responses: those of each response alone, whatever is packed beside it."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.unit.training.peers import tiny_qwen
from training.core.errors import DataError
from training.core.sequences import OnTrees, Tree, collate_trees, response_logits, token_entropies, token_log_probs


@dataclass(frozen=True)
class Weighed(OnTrees):
    weights: torch.Tensor
    count: int


tokens = st.lists(st.integers(3, 31), min_size=1, max_size=5).map(tuple)
trees = st.builds(Tree, tokens, st.lists(tokens, min_size=1, max_size=4).map(tuple))
rows = st.lists(st.lists(trees, max_size=3), min_size=1, max_size=3).filter(any)


@cache
def model() -> PreTrainedModel:
    return tiny_qwen(seed=0).eval()


@torch.no_grad()
def alone(prompt: tuple[int, ...], response: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Log-probs and entropies of a response's tokens, from a plain forward of the one sequence."""
    log_probs = model()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(1, torch.tensor(response)[:, None])[:, 0].tolist(), entropy.tolist()


@settings(max_examples=40, deadline=None)
@given(rows)
def test_responses_that_share_a_prompt_and_a_row_have_the_log_probs_that_they_have_alone(
    packed: list[list[Tree]],
) -> None:
    batch = collate_trees(packed, pad=0)
    with torch.no_grad():
        logits = response_logits(model(), batch)
        log_probs, entropies = token_log_probs(logits, batch), token_entropies(logits, batch)
    pairs = [(tree.prompt, response) for row in packed for tree in row for response in tree.responses]
    for row, pair in enumerate(pairs):
        expected, entropy = alone(*pair)
        missing = [0.0] * (log_probs.shape[1] - len(pair[1]))
        assert log_probs[row].tolist() == pytest.approx(expected + missing, abs=1e-4)
        assert entropies[row].tolist() == pytest.approx(entropy + missing, abs=1e-4)


def test_the_sum_counts_the_end_token_and_neither_prompt_nor_padding() -> None:
    batch = collate_trees([[Tree((5, 6), ((7, 8, 2), (9, 2)))], []], pad=0)
    with torch.no_grad():
        sums = token_log_probs(response_logits(model(), batch), batch).sum(dim=1)
    assert batch.tokens.tolist() == [[7, 8, 2], [9, 2, 0]]
    assert sums.tolist() == pytest.approx([sum(alone((5, 6), (7, 8, 2))[0]), sum(alone((5, 6), (9, 2))[0])], abs=1e-4)


def test_a_prompt_is_read_once_for_all_its_responses() -> None:
    batch = collate_trees([[Tree((5, 6, 7, 8), ((9, 2), (10, 2), (11, 2)))]], pad=0)
    assert (batch.input_ids.shape, batch.useful, batch.sequences) == ((1, 10), 10, 1)
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 4, 5]]


def test_a_batch_without_responses_has_an_empty_loss_with_a_gradient() -> None:
    batch = collate_trees([[]], pad=0)
    loss = token_log_probs(response_logits(model(), batch), batch).sum()
    assert (float(loss), loss.requires_grad, batch.sequences) == (0.0, True, 0)


@pytest.mark.parametrize("prompt, responses", [((), ((1,),)), ((1,), ()), ((1,), ((2,), ()))])
def test_a_prompt_or_a_response_without_tokens_is_refused(
    prompt: tuple[int, ...], responses: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(DataError, match="is empty"):
        Tree(prompt, responses)


def test_log_probs_of_a_bf16_model_are_summed_up_in_float32() -> None:
    batch = collate_trees([[Tree((5, 6), ((7, 2),))]], pad=0)
    logits = response_logits(tiny_qwen(seed=0).bfloat16().eval(), batch)
    assert token_log_probs(logits, batch).dtype == torch.float32
    assert token_log_probs(logits, batch).sum().item() == pytest.approx(sum(alone((5, 6), (7, 2))[0]), abs=0.1)


def test_a_batch_goes_to_another_device_with_all_that_it_holds() -> None:
    batch = Weighed(collate_trees([[Tree((1,), ((2, 3),))]], 0), torch.ones(1), 5)
    moved = batch.to(torch.device("meta"))
    assert {moved.weights.device.type, *(value.device.type for value in vars(moved.trees).values())} == {"meta"}
    assert (moved.count, batch.weights.device.type) == (5, "cpu")
    assert (batch.useful, batch.sequences) == (3, 1)
