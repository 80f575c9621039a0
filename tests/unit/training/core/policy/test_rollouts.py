"""Rollouts: samples of the model's own distribution, reproducible request by request, and the beams of a catalogue."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from threading import Event

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.unit.training.alignment_runs import ITEMS
from tests.unit.training.peers import tiny_qwen
from training.core.decoding import beam_search
from training.core.errors import DataError
from training.core.policy.groups import Group, Request
from training.core.policy.rollouts import Beams, Sampling, Seed, Stopped, roll_out
from training.core.trie import Trie

REQUESTS = [Request((5, 6, 7), number=0), Request((8,), number=1), Request((9, 10), number=2)]


@cache
def model() -> PreTrainedModel:
    return tiny_qwen(seed=0).eval()


@torch.no_grad()
def next_probabilities(tokens: tuple[int, ...], temperature: float) -> torch.Tensor:
    return (model()(torch.tensor([tokens])).logits[0, -1].double() / temperature).softmax(-1)


def by_hand(request: Request, sampling: Sampling, seed: tuple[int, ...]) -> list[tuple[int, ...]]:
    """One uncached forward per token, drawn from the same numbers by walking through the vocabulary.

    With `top_k` by walking down the most probable tokens.
    """
    shape = (sampling.responses, sampling.max_tokens)
    responses = []
    for draws in np.random.default_rng((*seed, request.number)).random(shape):
        tokens: tuple[int, ...] = ()
        for draw in draws:
            if tokens[-1:] == (sampling.end,):
                break
            odds, order = next_probabilities(request.prompt + tokens, sampling.temperature), torch.arange(32)
            if sampling.top_k:
                odds, order = odds.topk(sampling.top_k)
            tokens += (int(order[int((odds.cumsum(0) / odds.sum() <= draw).sum())]),)
        responses.append(tokens)
    return responses


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("top_k", [None, 5])
def test_samples_over_one_shared_cache_are_those_of_plain_forwards(batch_size: int, top_k: int | None) -> None:
    sampling = Sampling(4, max_tokens=6, end=2, temperature=1.3, top_k=top_k, batch_size=batch_size)
    found = roll_out(sampling, model(), REQUESTS, (3, 1), Event())
    assert [group.request for group in found] == REQUESTS
    for group in found:
        assert [response.tokens for response in group.responses] == by_hand(group.request, sampling, (3, 1))
        assert all(response.prompt == group.request.prompt for response in group.responses)


def test_nothing_is_sorted_unless_it_is_for_the_most_probable_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "topk", None)
    monkeypatch.setattr(torch.Tensor, "sort", None)
    assert Sampling(4, max_tokens=3, end=2)(model(), REQUESTS, seed=(0,))
    with pytest.raises(TypeError):
        Sampling(4, max_tokens=3, end=2, top_k=5)(model(), REQUESTS, seed=(0,))


def test_samples_are_the_same_however_few_logits_are_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for top_k in (None, 5):
        sampling = Sampling(4, max_tokens=6, end=2, temperature=1.3, top_k=top_k)
        whole = sampling(model(), REQUESTS, seed=(3, 1))
        with monkeypatch.context() as patch:
            patch.setattr("training.core.heads.LOGITS_AT_ONCE", 3 * 32)
            assert sampling(model(), REQUESTS, seed=(3, 1)) == whole


def test_the_share_of_each_first_token_is_its_probability() -> None:
    group = Sampling(4000, max_tokens=1, end=2)(model(), REQUESTS[:1], seed=(0,))[0]
    counts, odds = Counter(response.tokens[0] for response in group.responses), next_probabilities((5, 6, 7), 1.0)
    for token, probability in enumerate(odds.tolist()):
        assert abs(counts[token] / 4000 - probability) < 5 * math.sqrt(probability / 4000) + 1e-3


def test_what_is_sampled_for_a_request_does_not_depend_on_the_others_beside_it() -> None:
    sampling = Sampling(3, max_tokens=4, end=2)
    together = sampling(model(), REQUESTS, seed=(1,))
    assert sampling(model(), REQUESTS[2:], seed=(1,)) == together[2:]
    assert sampling(model(), REQUESTS, seed=(2,)) != together


def test_a_response_ends_with_its_end_token_or_at_the_limit() -> None:
    group = Sampling(64, max_tokens=4, end=2, temperature=3.0)(model(), REQUESTS[:1], seed=(0,))[0]
    ended = [response.tokens for response in group.responses if 2 in response.tokens]
    assert ended and all(tokens.index(2) == len(tokens) - 1 for tokens in ended)
    assert {len(response.tokens) for response in group.responses if 2 not in response.tokens} == {4}


def test_a_prompt_without_room_for_a_response_is_refused() -> None:
    with pytest.raises(DataError, match="longer than the model"):
        Sampling(2, max_tokens=10, end=2)(model(), [Request((5,) * 60)], seed=(0,))


def test_beams_are_the_best_items_best_first_and_fewer_where_the_catalogue_is_small() -> None:
    trie = Trie.build(ITEMS)
    found = Beams(trie, ITEMS, 5)(model(), REQUESTS, seed=(0,))
    expected = beam_search(model(), trie, [request.prompt for request in REQUESTS], 5).items.tolist()
    assert [[response.tokens for response in group.responses] for group in found] == [
        [ITEMS[item] for item in row] for row in expected
    ]
    assert [len(group.responses) for group in Beams(trie, ITEMS, 50)(model(), REQUESTS, seed=(0,))] == [len(ITEMS)] * 3


def test_no_request_gives_no_group() -> None:
    for rollout in (Beams(Trie.build(ITEMS), ITEMS, 5), Sampling(2, max_tokens=2, end=2)):
        assert roll_out(rollout, model(), [], (0,), Event()) == []


def test_rollouts_are_given_up_before_the_next_batch_once_the_run_is_asked_to_stop() -> None:
    stop, asked = Event(), []

    class Stopping(Sampling):
        def __call__(self, model: PreTrainedModel, requests: Sequence[Request], seed: Seed) -> list[Group]:
            asked.append([request.number for request in requests])
            stop.set()
            return super().__call__(model, requests, seed)

    with pytest.raises(Stopped):
        roll_out(Stopping(2, max_tokens=2, end=2, batch_size=2), model(), REQUESTS, (0,), stop)
    assert asked == [[1, 2]]
