"""Benchmarks of the text side: SmolLM2 beside plain transformers, same weights, same batch, in turns.

Skipped where its package is not installed. `float32_gap` and `same_tokens` are of the same work in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from training.bench_peers import in_turns, train_padded
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone
from training.core.choice import Choice
from training.core.embedded import SMOLLM2, local_folder
from training.core.errors import DataError
from training.core.generation import generate
from training.core.loop import Loop, LoopConfig
from training.core.packing import Sample
from training.core.scoring import scores
from training.core.sequences import Tokens, Tree
from training.core.tokens import Vocabulary

Result = dict[str, float | int | str]
_TEXT = "A customer who bought a stainless steel whisk and a cutting board asks for a gift for a cook. "


def bench_lm_score(runs: int = 3) -> Result:
    """20 continuations of 40 tokens after a prompt of 300: scored together, and pair by pair; continuations/s.

    The peer asks for the logits of the continuation only. Gaps are the largest difference of a sum, by token.
    """
    return _or_skipped(lambda: _score(runs))


def _score(runs: int) -> Result:
    tree = Tree(_tokens(300, 1)[0], tuple(_tokens(40, 20)))
    model, exact = _model(torch.bfloat16), _model(torch.float32)
    gaps = [float((scores(one, [tree])[0] - _pair_by_pair(one, tree)).abs().max()) / 40 for one in (exact, model)]
    ours, peer = in_turns(runs, lambda: scores(model, [tree]), lambda: _pair_by_pair(model, tree))
    return {
        "ours": 20 / ours,
        "peer": 20 / peer,
        "unit": "continuations/s",
        "runs": runs,
        "float32_gap": gaps[0],
        "bf16_gap": gaps[1],
    }


@torch.inference_mode()
def _pair_by_pair(model: PreTrainedModel, tree: Tree) -> Tensor:
    found = []
    for response in tree.responses:
        ids = torch.tensor([tree.prompt + response])
        logits = model(input_ids=ids, logits_to_keep=len(response) + 1).logits[0, :-1].float()
        found.append(logits.log_softmax(dim=1).gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(found)


def bench_lm_generate(runs: int = 2) -> Result:
    """16 greedy answers of 40 tokens to prompts of 200, prompts included, beside `generate` of transformers; tokens/s.

    `ratio_after_prompts`: of what comes after the first token alone; both sides read prompts alike. `ratio_rollouts`:
    16 samples for one prompt, which `generate` reads 16 times. `same_tokens` is the share that is alike in float32.
    """
    return _or_skipped(lambda: _generate(runs))


def _generate(runs: int) -> Result:
    model, exact, prompts = _model(torch.bfloat16), _model(torch.float32), _tokens(200, 16)
    same = torch.tensor([answer for (answer,) in _ours(exact, prompts[:4], 12)]) == _theirs(exact, prompts[:4], 12)
    ours, peer, ours_first, peer_first, ours_rollouts, peer_rollouts = in_turns(
        runs,
        lambda: _ours(model, prompts, 40),
        lambda: _theirs(model, prompts, 40),
        lambda: _ours(model, prompts, 1),
        lambda: _theirs(model, prompts, 1),
        lambda: _ours(model, prompts[:1], 40, responses=16),
        lambda: _theirs(model, prompts[:1], 40, responses=16),
    )
    return {
        "ours": 16 * 40 / ours,
        "peer": 16 * 40 / peer,
        "unit": "tokens/s",
        "runs": runs,
        "ratio_after_prompts": (peer - peer_first) / (ours - ours_first),
        "ratio_rollouts": peer_rollouts / ours_rollouts,
        "same_tokens": float(same.float().mean()),
    }


def _ours(model: PreTrainedModel, prompts: Sequence[Tokens], count: int, responses: int = 1) -> list[list[Tokens]]:
    choice = Choice(temperature=0.0 if responses == 1 else 1.0)
    return generate(model, prompts, max_tokens=count, ends=(), choice=choice, responses=responses)


@torch.inference_mode()
def _theirs(model: PreTrainedModel, prompts: Sequence[Tokens], count: int, responses: int = 1) -> Tensor:
    ids = torch.tensor(prompts)
    written: Tensor = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=responses > 1,
        **({"top_k": 0} if responses > 1 else {}),
        num_return_sequences=responses,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=2,
    )
    return written[:, ids.shape[1] :]


def bench_lm_train(runs: int = 2) -> Result:
    """LoRA on all linear layers: our loop beside `Trainer` and PEFT, samples of mixed lengths; useful tokens/s.

    `ratio_even`: samples of one length, so that nothing is padded.
    """
    return _or_skipped(lambda: _train(runs))


def _train(runs: int) -> Result:
    vocabulary = Vocabulary.create(AutoTokenizer.from_pretrained(local_folder(SMOLLM2)), {})
    config = BackboneConfig(path=SMOLLM2, lora=LoraSettings(rank=16, alpha=32, dropout=0.0))
    model, rng = build_backbone(config, vocabulary, seed=0), np.random.default_rng(0)
    mixed = [_sample(int(length)) for length in rng.integers(24, 129, size=28)]
    even = [_sample(128) for _ in range(24)]
    ours, peer, ours_even, peer_even = in_turns(
        runs,
        lambda: _train_packed(model, mixed),
        lambda: train_padded(model, mixed, 14, "random"),
        lambda: _train_packed(model, even),
        lambda: train_padded(model, even, 8, "random"),
    )
    tokens = sum(map(len, mixed))
    return {
        "ours": tokens / ours,
        "peer": tokens / peer,
        "unit": "useful tokens/s",
        "runs": runs,
        "ratio_even": peer_even / ours_even,
    }


def _train_packed(model: PreTrainedModel, samples: Sequence[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = LoopConfig(epochs=1, rows=8, row_tokens=128, checkpoint_steps=1_000_000)
        loop: Loop[Sample] = Loop(model, 2, config, 0, Path(folder), "bench")
        loop.train(lambda epoch: samples, samples[:1])


def _sample(length: int) -> Sample:
    (tokens,) = _tokens(length, 1)
    return Sample(tokens[:-16], tokens[-16:])


def _tokens(length: int, count: int) -> list[Tokens]:
    """Texts of so many tokens that begin differently."""
    tokenizer = AutoTokenizer.from_pretrained(local_folder(SMOLLM2))
    texts = [f"Number {100 + n}. " + _TEXT * (1 + length // 20) for n in range(count)]
    return [tuple(tokenizer.encode(text)[:length]) for text in texts]


def _model(dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(local_folder(SMOLLM2), dtype=dtype, local_files_only=True).eval()


def _or_skipped(measure: Callable[[], Result]) -> Result:
    try:
        local_folder(SMOLLM2)
    except DataError as refusal:
        return {"skipped": f"{refusal.what}; {refusal.do}"}
    return measure()
