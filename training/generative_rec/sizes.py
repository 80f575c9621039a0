"""How large the stages' samples can get, from their configs alone: the upper bounds that `training check` goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from training.core.backbone import BackboneConfig
from training.core.decoding import REQUESTS_AT_ONCE
from training.core.footprint import Decoding, Load
from training.core.loop import LoopConfig
from training.core.policy.trainer import PolicyConfig
from training.core.prompts import Template
from training.generative_rec.stages import grpo, listwise, progressive, scid_tokenizer, semantic_ids, sft
from training.generative_rec.tasks import TEXT_SLOTS, task_templates
from training.generative_rec.validation import EVAL_BEAMS

Ids = semantic_ids.Config | scid_tokenizer.Config
Aligned = progressive.Config | listwise.Config | grpo.Config


def mentioned(config: Any) -> set[str]:
    """The stages that a config names."""
    values = asdict(config)
    models = values.get("models", {})
    return {values[key] for key in ("start", "codes") if isinstance(values.get(key), str)} | {*models, *models.values()}


def loads(configs: Mapping[str, Any], backbone: str | None = None) -> dict[str, Load]:
    """The load of every stage that trains a language model; `backbone` stands for the path that the configs name."""
    found: dict[str, Load] = {}
    for name, config in configs.items():
        if isinstance(config, sft.Config):
            found[name] = _of_sft(config, configs[config.codes], backbone)
        elif isinstance(config, Aligned):
            found[name] = _of_aligned(config, configs[config.codes], found[config.start])
    return found


def _levels(ids: Ids) -> tuple[int, int, int]:
    """Tokens of an item at most, tokens of a user, and how many codes there are of both."""
    if isinstance(ids, semantic_ids.Config):
        return ids.levels + 1, 0, (ids.levels + 1) * ids.codes
    levels, codes = ids.quantizer.levels, ids.quantizer.codes
    return levels + 1, levels, (2 * levels + 1) * codes


def _of_sft(config: sft.Config, ids: Ids, backbone: str | None) -> Load:
    path = config.backbone.path and (backbone or config.backbone.path)
    own = 0 if path else config.text_tokens
    templates = [(task, one) for task in config.tasks for one in task_templates()[task]]
    longest = max(_tokens(task, template, config, ids) for task, template in templates)
    tokens = _levels(ids)[2] + own
    shape = replace(config.backbone, path=path)
    return Load(shape, tokens, config.loop.rows, config.loop.row_tokens, longest, longest)


def _tokens(task: str, template: Template, config: sft.Config, ids: Ids) -> int:
    """Tokens of a filled template at most: a literal has no more than bytes; begin and end tokens come on top."""
    item, user, _ = _levels(ids)
    slots = {"user": user, "history": config.history * item, "item": item}
    slots |= dict.fromkeys(TEXT_SLOTS, config.slot_tokens + 2)
    if task == "sequential":  # learns a whole history as one response
        slots |= {"history": 0, "item": (config.history + 1) * item}
    parts = [(place, part) for side in (template.prompt, template.response) for place, part in enumerate(side)]
    return 2 + sum(slots[part] if place % 2 else len(part.encode()) for place, part in parts)


def _of_aligned(config: Aligned, ids: Ids, start: Load) -> Load:
    # What a stage hands on is a whole model: its LoRA is merged in, and what trains on it trains all of it.
    item, user, _ = _levels(ids)
    prompt = 1 + user + config.history * item
    plain: BackboneConfig = replace(start.backbone, lora=None, gradient_checkpointing=False)
    batch: LoopConfig | PolicyConfig
    if isinstance(config, grpo.Config):
        answers, batch, reference, beams = config.beams, config.policy, config.kl > 0, config.beams
    elif isinstance(config, listwise.Config):
        answers, batch, reference, beams = 1 + config.ranked.top, config.loop, False, EVAL_BEAMS
    else:
        answers, batch, reference, beams = 1 + config.choice.most, config.loop, False, config.choice.beams
    longest = prompt + answers * item
    decoding = Decoding(REQUESTS_AT_ONCE, prompt, max(beams, EVAL_BEAMS), item)
    return Load(plain, start.tokens, batch.rows, batch.row_tokens, longest, prompt + item, reference, decoding)
