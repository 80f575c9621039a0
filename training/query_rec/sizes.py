"""How large the samples of models of hints can get, from configs alone: what `training check` goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from training.core.decoding import REQUESTS_AT_ONCE
from training.core.footprint import Decoding, Load
from training.core.prompts import FENCES
from training.query_rec.examples import ListConfig
from training.query_rec.hint_model import AnswerConfig
from training.query_rec.interest_lists import BORDERS
from training.query_rec.prompts import special_tokens
from training.query_rec.stages import il_grpo, il_sft, lists

_FIELDS = 3  # tokens of a behaviour beside its content: number, days, action
_WORDS = 24  # tokens of what every prompt says: begin, who, and what is asked


def mentioned(config: Any) -> set[str]:
    """The stages that a config names."""
    values = asdict(config)
    named = {values[key] for key in ("start", "generated") if values.get(key)}
    if isinstance(values.get("lists"), str):
        named.add(values["lists"])
    rows = values.get("rows")
    return named | set(rows.values() if isinstance(rows, Mapping) else ())


def loads(configs: Mapping[str, Any], backbone: str | None = None) -> dict[str, Load]:
    """The load of every stage that trains a language model; `backbone` stands for the path that the configs name."""
    found: dict[str, Load] = {}
    for name, config in configs.items():
        if isinstance(config, il_sft.Config):
            found[name] = _of_sft(config, _lists(configs, config.lists), backbone)
        elif isinstance(config, il_grpo.Config):
            start = configs[config.start]
            found[name] = _of_grpo(config, found[config.start], start, _lists(configs, config.lists))
    return found


def prompt_tokens(answers: AnswerConfig, sizes: ListConfig, *, profiles: bool) -> int:
    """Tokens of a prompt at most."""
    fences = len(FENCES)
    profile = answers.profile_tokens + fences if profiles else 0
    return _WORDS + sizes.behaviours * (_FIELDS + answers.text_tokens + fences) + profile


def answer_tokens(answers: AnswerConfig, sizes: ListConfig) -> int:
    """Tokens of an answer at most."""
    labels, query = sizes.labels, answers.query_tokens + 1
    if answers.form == "direct":
        return labels.most * query
    return answers.reason_tokens + 1 + labels.interests * (sizes.behaviours + 1 + labels.queries * query)


def _lists(configs: Mapping[str, Any], stage: str) -> lists.Config:
    found = configs[stage]
    assert isinstance(found, lists.Config)
    return found


def _of_sft(config: il_sft.Config, made: lists.Config, backbone: str | None) -> Load:
    path = config.backbone.path and (backbone or config.backbone.path)
    longest = prompt_tokens(config.answers, made.lists, profiles=made.profiles)
    longest += answer_tokens(config.answers, made.lists)
    special = len(FENCES) + len(BORDERS) + len(special_tokens(made.lists.behaviours))
    tokens = special if path else config.text_vocabulary + special
    return Load(replace(config.backbone, path=path), tokens, config.loop.rows, config.loop.row_tokens, longest, longest)


def _of_grpo(config: il_grpo.Config, start: Load, sft: il_sft.Config, made: lists.Config) -> Load:
    # What a stage hands on is a whole model: its LoRA is merged in, and what trains on it trains all of it.
    plain = replace(start.backbone, lora=None, gradient_checkpointing=False)
    prompt = prompt_tokens(sft.answers, made.lists, profiles=made.profiles)
    answer = answer_tokens(sft.answers, made.lists)
    decoding = Decoding(REQUESTS_AT_ONCE, prompt, config.responses, answer)
    policy = config.policy
    return Load(
        plain, start.tokens, policy.rows, policy.row_tokens, prompt + answer, prompt + answer, decoding=decoding
    )
