"""Benchmarks of the training core against the plain tools: each returns medians of runs taken in turns.

Called by the bench harness in a process with the allocator settings of `training.core.environment` (both sides).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from training.core.decoding import beam_search
from training.core.loop import Loop, LoopConfig
from training.core.packing import IGNORED, Sample
from training.core.trie import Trie

Result = dict[str, float | int | str]
_FIRST_CODE, _CODES, _LEVELS = 300, 256, 3


@dataclass(frozen=True)
class DecodeTask:
    """32 requests of mixed length, 20 beams, 10 thousand items of 3 codes, a Qwen3 of 256 x 6 layers."""

    model: PreTrainedModel
    items: list[tuple[int, ...]]
    prompts: list[list[int]]
    beams: int = 20

    @classmethod
    def create(cls, items: int = 10_000, requests: int = 32) -> DecodeTask:
        """The same task for the same sizes, always."""
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=_FIRST_CODE + _LEVELS * _CODES,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=0,
        )
        rng = np.random.default_rng(0)
        numbers = rng.choice(_CODES**_LEVELS, size=items, replace=False)
        catalogue = [_tokens(int(number)) for number in numbers]
        histories = [rng.choice(items, size=rng.integers(5, 21)).tolist() for _ in range(requests)]
        prompts = [[1, *(token for item in history for token in catalogue[item])] for history in histories]
        return cls(Qwen3ForCausalLM(config).eval(), catalogue, prompts)


def _tokens(number: int) -> tuple[int, ...]:
    return tuple(_FIRST_CODE + level * _CODES + number // _CODES**level % _CODES for level in range(_LEVELS))


def bench_decode(runs: int = 3) -> Result:
    """Constrained beam search against `transformers.generate` with a dictionary of allowed tokens; requests/s."""
    task = DecodeTask.create()
    trie, following = Trie.build(task.items), _following(task.items)
    ours, peer = _in_turns(
        runs,
        lambda: beam_search(task.model, trie, task.prompts, task.beams),
        lambda: _generate(task, following),
    )
    requests = len(task.prompts)
    return {"ours": requests / ours, "peer": requests / peer, "unit": "requests/s", "runs": runs}


def bench_decode_floor(runs: int = 5) -> Result:
    """Constrained beam search against its own forward passes without any search; requests/s."""
    task = DecodeTask.create()
    trie = Trie.build(task.items)
    ours, floor = _in_turns(
        runs, lambda: beam_search(task.model, trie, task.prompts, task.beams), lambda: _forward_floor(task)
    )
    requests = len(task.prompts)
    return {"ours": requests / ours, "peer": requests / floor, "unit": "requests/s", "runs": runs}


def bench_decode_scale(runs: int = 3) -> Result:
    """The same requests over one million items (ours) and over ten thousand (peer); seconds per batch of 32."""
    small, large = DecodeTask.create(), DecodeTask.create(items=1_000_000)
    tries = Trie.build(small.items), Trie.build(large.items)
    ours, peer = _in_turns(
        runs,
        lambda: beam_search(small.model, tries[1], small.prompts, small.beams),
        lambda: beam_search(small.model, tries[0], small.prompts, small.beams),
    )
    return {"ours": ours, "peer": peer, "unit": "s", "runs": runs}


def bench_sft(runs: int = 3) -> Result:
    """The loop (packed rows) against `transformers.Trainer` (padded random batches); useful tokens/s of training."""
    task = DecodeTask.create(requests=300)
    samples = [Sample(tuple(prompt[:-3]), tuple(prompt[-3:])) for prompt in task.prompts]
    tokens = sum(map(len, samples))
    ours, peer = _in_turns(runs, lambda: _train_packed(task.model, samples), lambda: _train_padded(task.model, samples))
    return {"ours": tokens / ours, "peer": tokens / peer, "unit": "useful tokens/s", "runs": runs}


def _train_packed(model: PreTrainedModel, samples: Sequence[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = LoopConfig(epochs=1, rows=8, row_tokens=128, checkpoint_steps=1_000_000)
        loop: Loop[Sample] = Loop(model, 0, config, 0, Path(folder), "bench")
        loop.train(lambda epoch: samples, samples[:1])


def _train_padded(model: PreTrainedModel, samples: Sequence[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=24,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            learning_rate=1e-3,
        )
        Trainer(model, arguments, train_dataset=list(samples), data_collator=_padded_batch).train()


def _padded_batch(samples: Sequence[Sample]) -> dict[str, Tensor]:
    width = max(map(len, samples))
    rows = [sample.prompt + sample.response + (0,) * (width - len(sample)) for sample in samples]
    labels = [
        (IGNORED,) * len(sample.prompt) + sample.response + (IGNORED,) * (width - len(sample)) for sample in samples
    ]
    mask = [[1] * len(sample) + [0] * (width - len(sample)) for sample in samples]
    return {"input_ids": torch.tensor(rows), "labels": torch.tensor(labels), "attention_mask": torch.tensor(mask)}


def _in_turns(runs: int, ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both, after one warm-up each."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for side, call in zip(taken, (ours, peer), strict=True):
            started = time.perf_counter()
            call()
            if turn:
                side.append(time.perf_counter() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _following(items: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    following: dict[tuple[int, ...], set[int]] = {}
    for item in items:
        for depth in range(len(item)):
            following.setdefault(item[:depth], set()).add(item[depth])
    return {prefix: sorted(tokens) for prefix, tokens in following.items()}


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, (ids != 0).long()


def _generate(task: DecodeTask, following: dict[tuple[int, ...], list[int]]) -> tuple[Tensor, Tensor]:
    """What a user of transformers would write. Token sequences [B * K, 3] and scores [B * K]."""
    ids, mask = _left_padded(task.prompts)
    width = ids.shape[1]
    with torch.inference_mode():
        found = task.model.generate(
            ids,
            attention_mask=mask,
            num_beams=task.beams,
            num_return_sequences=task.beams,
            max_new_tokens=_LEVELS,
            do_sample=False,
            length_penalty=0.0,
            eos_token_id=None,
            prefix_allowed_tokens_fn=lambda _, tokens: following[tuple(tokens[width:].tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )
    return found.sequences[:, width:], found.sequences_scores


@torch.inference_mode()
def _forward_floor(task: DecodeTask) -> None:
    """One prefill, then two steps of 20 tokens per request over the same cache, with no mask and no choice."""
    ids, mask = _left_padded(task.prompts)
    output = task.model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
    token = torch.ones(len(ids), task.beams, dtype=torch.long)
    for _ in range(_LEVELS - 1):
        visible = torch.ones(len(ids), 1, task.beams, output.past_key_values.get_seq_length() + task.beams).bool()
        output = task.model(
            input_ids=token, attention_mask=visible, past_key_values=output.past_key_values, use_cache=True
        )
