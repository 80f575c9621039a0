"""How large the samples of scorer and aggregator can get, from configs alone: what `training check` goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from training.core.decoding import REQUESTS_AT_ONCE
from training.core.footprint import Decoding, Load
from training.core.prompts import FENCES
from training.semantic_judge.aspects import aspects
from training.semantic_judge.prompts import TEXTS, PromptConfig
from training.semantic_judge.stages import aggregator, scorer_grpo, scorer_sft
from training.semantic_judge.user_prompt import wording

_TEXTS = 5  # fenced texts of an aggregator's prompt
_EVIDENCE = 320  # characters of the longest line
_NUMBERS = 40  # characters of stars, of a price, and of what the levels are


def mentioned(config: Any) -> set[str]:
    """The stages that a config names."""
    values = asdict(config)
    named = {values[key] for key in ("start", "scorer") if isinstance(values.get(key), str)}
    return {*values.get("scorers", {}).values(), *named}


def loads(configs: Mapping[str, Any], backbone: str | None = None) -> dict[str, Load]:
    """The load of every stage that trains a language model; `backbone` stands for the path that the configs name."""
    found: dict[str, Load] = {}
    for name, config in configs.items():
        if isinstance(config, scorer_sft.Config):
            found[name] = _of_sft(config, backbone)
        elif isinstance(config, scorer_grpo.Config):
            found[name] = _of_grpo(config, found[config.start], configs[config.start])
        elif isinstance(config, aggregator.Config):
            found[name] = _of_aggregator(config, backbone)
    return found


def _of_sft(config: scorer_sft.Config, backbone: str | None) -> Load:
    path = config.backbone.path and (backbone or config.backbone.path)
    longest = prompt_tokens(config.prompts, own=path is None) + _answer(config)
    shape = replace(config.backbone, path=path)
    return Load(
        shape, len(FENCES) if path else config.text_tokens, config.loop.rows, config.loop.row_tokens, longest, longest
    )


def _of_grpo(config: scorer_grpo.Config, start: Load, sft: scorer_sft.Config) -> Load:
    # What a stage hands on is a whole model: its LoRA is merged in, and what trains on it trains all of it.
    plain = replace(start.backbone, lora=None, gradient_checkpointing=False)
    prompt, answer = start.longest - _answer(sft), _answer(sft)
    decoding = Decoding(REQUESTS_AT_ONCE, prompt, config.responses, answer)
    rows, longest = config.policy.rows, prompt + answer
    return Load(plain, start.tokens, rows, config.policy.row_tokens, longest, longest, config.kl > 0, decoding)


def _of_aggregator(config: aggregator.Config, backbone: str | None) -> Load:
    path, training, levels = config.backbone.path and (backbone or config.backbone.path), config.training, aspects(True)
    plain = len(wording(levels).encode())
    prompt = 1 + _TEXTS * (config.text_tokens + len(FENCES)) + (-(-plain // 3) if path else plain)
    one, all_ = prompt + len(levels), prompt + training.group * len(levels)
    decoding = Decoding(REQUESTS_AT_ONCE, prompt, training.group, len(levels))
    shape, rows = replace(config.backbone, path=path), max(training.start.rows, training.policy.rows)
    tokens = len(FENCES) if path else config.vocabulary
    return Load(shape, tokens, rows, training.policy.row_tokens, all_, one, training.kl > 0, decoding)


def prompt_tokens(config: PromptConfig, *, own: bool) -> int:
    """Tokens of a prompt at most. A small vocabulary (`own`) may know no more than letters of what is not fenced, a
    large one has a token for each three of them, and more."""
    fenced = 2 * (config.profile_tokens + 2)
    plain = sum(len(text.encode()) for text in TEXTS) + _NUMBERS
    if config.titles:
        fenced += (config.history + 3) * (config.title_tokens + 2)
        plain += 3 * config.history + _NUMBERS
    if config.evidence:
        plain += _EVIDENCE
    return 1 + fenced + (plain if own else -(-plain // 3))


def _answer(config: scorer_sft.Config) -> int:
    return len(aspects(True)) + config.reason_tokens + 1
