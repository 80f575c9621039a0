"""Benchmarks of the training core against the plain tools: each returns medians of runs taken in turns.

Called by the bench harness in a process with the allocator settings of `training.core.environment` (both sides).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel

from training.bench_peers import (
    Task,
    example,
    following,
    forward_floor,
    generate,
    in_turns,
    now,
    padded_batch,
    train_padded,
)
from training.core.decoding import beam_search
from training.core.loop import Loop, LoopConfig, NextToken
from training.core.packing import IGNORED, Sample, collate
from training.core.trie import Trie

Result = dict[str, float | int | str]
# Eight rows of 128 tokens hold about 26 samples.
_ROWS, _ROW_TOKENS, _BATCH = 8, 128, 26


def bench_decode(runs: int = 3) -> Result:
    """Constrained beam search against `transformers.generate` with a dictionary of allowed tokens; requests/s.

    `same_items` is the share of requests for which both find the same items, `score_gap` the largest difference of
    their log-probs, `dead` how many of our beams hold no item.
    """
    task = Task.create()
    trie, allowed, requests = Trie.build(task.items), following(task.items), len(task.prompts)
    found, (tokens, scores) = beam_search(task.model, trie, task.prompts, task.beams), generate(task, allowed)
    expected = trie.items_of(tokens.cpu()).view(requests, -1)
    same = (found.items.cpu().sort(dim=1).values == expected.sort(dim=1).values).all(dim=1)
    ours, peer = in_turns(
        runs, lambda: beam_search(task.model, trie, task.prompts, task.beams), lambda: generate(task, allowed)
    )
    return {
        "ours": requests / ours,
        "peer": requests / peer,
        "unit": "requests/s",
        "runs": runs,
        "same_items": float(same.float().mean()),
        "score_gap": float((found.log_probs - scores.view(requests, -1)).abs().max()),
        "dead": found.dead,
    }


def bench_decode_floor(runs: int = 5) -> Result:
    """Constrained beam search against its own forward passes without any search; requests/s."""
    task = Task.create()
    trie, requests = Trie.build(task.items), len(task.prompts)
    ours, floor = in_turns(
        runs, lambda: beam_search(task.model, trie, task.prompts, task.beams), lambda: forward_floor(task)
    )
    return {"ours": requests / ours, "peer": requests / floor, "unit": "requests/s", "runs": runs}


def bench_decode_scale(runs: int = 3) -> Result:
    """The same requests over one million items (ours) and over ten thousand (peer); seconds per batch of 32."""
    task = Task.create()
    small, large = Trie.build(task.items), Trie.build(Task.create(items=1_000_000).items)
    ours, peer = in_turns(
        runs,
        lambda: beam_search(task.model, large, task.prompts, task.beams),
        lambda: beam_search(task.model, small, task.prompts, task.beams),
    )
    return {"ours": ours, "peer": peer, "unit": "s", "runs": runs}


def bench_decode_mask(runs: int = 5) -> Result:
    """What finding the allowed tokens takes of the time after the prefill; `large`: with one million items."""
    shares = {items: _mask_share(Task.create(items), runs) for items in (10_000, 1_000_000)}
    return {"ours": shares[10_000], "unit": "% of a decode step", "runs": runs, "large": shares[1_000_000]}


def _mask_share(task: Task, runs: int) -> float:
    """Percent: the median of the runs, after a warm-up."""
    trie, decoder, shares = Trie.build(task.items).to(task.model.device), task.model.get_decoder(), []
    for _ in range(runs + 1):
        search, forward, mask = _Watch(beam_search), _Watch(decoder.forward), _Watch(trie.children)
        with patch.object(decoder, "forward", forward), patch.object(Trie, "children", mask):
            search(task.model, trie, task.prompts, task.beams)
        shares.append(100 * sum(mask.spans) / (search.spans[0] - forward.spans[0]))
    return statistics.median(shares[1:])


class _Watch:
    """A function that notes the seconds of each of its calls."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call, self.spans = call, list[float]()

    def __call__(self, *given: Any, **named: Any) -> Any:
        started = now()
        result = self._call(*given, **named)
        self.spans.append(now() - started)
        return result


def bench_sft(runs: int = 3) -> Result:
    """The loop against `transformers.Trainer`, padded batches in random order; useful tokens/s of an epoch.

    `grouped` is the same Trainer with batches of similar lengths; `loss_gap` is by how much, relatively, the loss of
    one batch differs between our rows and padded ones.
    """
    task = Task.create(requests=1_200)
    model, samples = task.model, task.samples
    loss_gap = _loss_gap(model, samples[:_BATCH])
    ours, padded, grouped = in_turns(
        runs,
        lambda: _train_packed(model, samples),
        lambda: train_padded(model, samples, _BATCH, "random"),
        lambda: train_padded(model, samples, _BATCH, "group_by_length"),
    )
    tokens = sum(map(len, samples))
    return {
        "ours": tokens / ours,
        "peer": tokens / padded,
        "unit": "useful tokens/s",
        "runs": runs,
        "grouped": tokens / grouped,
        "ratio_grouped": grouped / ours,
        "loss_gap": loss_gap,
    }


def _train_packed(model: PreTrainedModel, samples: Sequence[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = LoopConfig(epochs=1, rows=_ROWS, row_tokens=_ROW_TOKENS, checkpoint_steps=1_000_000)
        loop: Loop[Sample] = Loop(model, 0, config, 0, Path(folder), "bench")
        loop.train(lambda epoch: samples, samples[:1])


@torch.no_grad()
def _loss_gap(model: PreTrainedModel, samples: Sequence[Sample]) -> float:
    batch = {name: value.to(model.device) for name, value in padded_batch(list(map(example, samples))).items()}
    learnt = int((batch["labels"] != IGNORED).sum())
    row = collate([samples], sum(map(len, samples)), 0).to(model.device)
    ours, peer = float(NextToken().loss(model, row)[0]) / learnt, float(model(**batch).loss)
    return abs(ours - peer) / peer
