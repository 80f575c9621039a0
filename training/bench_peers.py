"""What the benchmarks compare with: one task for decoding and training, and how a user of transformers would do it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from training.core.device import accelerator
from training.core.packing import IGNORED, Sample
from training.core.precision import products_of

Example = Mapping[str, tuple[int, ...]]
Following = Mapping[tuple[int, ...], list[int]]
_FIRST_CODE, _CODES, _LEVELS = 300, 256, 3


@dataclass(frozen=True)
class Task:
    """32 requests of mixed length, 20 beams, 10 thousand items of 3 codes, a Qwen3 of 256 x 6 layers."""

    model: PreTrainedModel
    items: list[tuple[int, ...]]
    prompts: list[list[int]]
    beams: int = 20

    @classmethod
    def create(cls, items: int = 10_000, requests: int = 32) -> Task:
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
        catalogue = [
            tuple(_FIRST_CODE + level * _CODES + number // _CODES**level % _CODES for level in range(_LEVELS))
            for number in numbers.tolist()
        ]
        histories = [rng.choice(items, size=rng.integers(5, 21)).tolist() for _ in range(requests)]
        prompts = [[1, *(token for item in history for token in catalogue[item])] for history in histories]
        return cls(Qwen3ForCausalLM(config).eval().to(accelerator().device), catalogue, prompts)

    @property
    def samples(self) -> list[Sample]:
        """The last item of each prompt, to be learnt after those before it."""
        return [Sample(tuple(prompt[:-_LEVELS]), tuple(prompt[-_LEVELS:])) for prompt in self.prompts]


def in_turns(runs: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each, after a warm-up, in turns, so that a busy machine is busy for all."""
    spans: list[list[float]] = [[] for _ in works]
    for turn in range(runs + 1):
        for measured, work in zip(spans, works, strict=True):
            started = now()
            work()
            if turn > 0:
                measured.append(now() - started)
    return list(map(statistics.median, spans))


def now() -> float:
    """Seconds on a steady clock, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def following(items: Sequence[tuple[int, ...]]) -> Following:
    """Which tokens may follow each prefix of an item."""
    tokens: dict[tuple[int, ...], set[int]] = {}
    for item in items:
        for depth in range(len(item)):
            tokens.setdefault(item[:depth], set()).add(item[depth])
    return {prefix: sorted(allowed) for prefix, allowed in tokens.items()}


def _left_padded(task: Task) -> tuple[Tensor, Tensor]:
    width = max(map(len, task.prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in task.prompts], device=task.model.device)
    return ids, (ids != 0).long()


def generate(task: Task, allowed: Following) -> tuple[Tensor, Tensor]:
    """Constrained beam search by a dictionary. Token sequences [B * K, 3] and scores [B * K]."""
    ids, mask = _left_padded(task)
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
            prefix_allowed_tokens_fn=lambda _, tokens: allowed[tuple(tokens[width:].tolist())],
            return_dict_in_generate=True,
            output_scores=True,
        )
    return found.sequences[:, width:], found.sequences_scores


@torch.inference_mode()
def forward_floor(task: Task) -> None:
    """One prefill, then two steps of 20 tokens per request over the same cache, with no mask and no choice."""
    ids, mask = _left_padded(task)
    output = task.model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
    token = torch.ones(len(ids), task.beams, dtype=torch.long, device=ids.device)
    for _ in range(_LEVELS - 1):
        length = output.past_key_values.get_seq_length() + task.beams
        visible = torch.ones(len(ids), 1, task.beams, length, dtype=torch.bool, device=ids.device)
        output = task.model(
            input_ids=token, attention_mask=visible, past_key_values=output.past_key_values, use_cache=True
        )


def train_padded(model: PreTrainedModel, samples: Sequence[Sample], batch: int, order: str) -> None:
    """An epoch of the `Trainer` of transformers, in a sampling order that it knows, in the products of our own loop."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            train_sampling_strategy=order,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=products_of(model) is torch.bfloat16,
            learning_rate=1e-3,
        )
        Trainer(model, arguments, train_dataset=list(map(example, samples)), data_collator=padded_batch).train()


def example(sample: Sample) -> Example:
    """A sample as a `Trainer` takes it."""
    return {
        "input_ids": sample.prompt + sample.response,
        "labels": (IGNORED,) * len(sample.prompt) + sample.response,
    }


def padded_batch(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Examples as one batch, as wide as the longest."""
    ids, labels = ([torch.tensor(each[name]) for each in examples] for name in ("input_ids", "labels"))
    mask = [torch.ones(len(row), dtype=torch.long) for row in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        "attention_mask": pad_sequence(mask, batch_first=True),
    }
