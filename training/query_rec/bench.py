"""Benchmark of how lists of hints are written: as the system does it, beside `generate` of transformers list by list.

People, things and queries are made up: what is written means nothing, how fast it is does. A model learns them first,
so that lists have the length and the end that lists have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from common.config import parse_config
from common.pipelines import Preset, load_pipeline
from training.bench_peers import in_turns
from training.core.decoding import left_padded
from training.core.embedded import SMOLLM2, local_folder
from training.core.errors import DataError
from training.core.grammar import Allowed
from training.core.precision import inference
from training.core.sequences import Tokens
from training.core.stage import StageSpec
from training.query_rec.examples import Example, Examples, ListConfig
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_writer import SampleConfig, choice_of, write_lists
from training.query_rec.list_maker import DIRECT
from training.query_rec.people import Person
from training.query_rec.prompts import SEARCH, Behaviours
from training.query_rec.stages import il_sft

Result = dict[str, float | int | str]
_COLOURS = ("red", "blue", "green", "black", "white", "silver", "pink", "brown")
_MAKERS = ("acme", "north", "sol", "vero", "kite", "oak", "delta", "lumen", "peak", "tide")
_THINGS = (
    "desk lamp", "office chair", "fountain pen", "paper tray", "label tape", "usb cable", "toner cartridge", "notebook",
    "glue stick", "laser printer", "monitor stand", "file folder", "whiteboard", "marker set", "mouse pad", "stapler",
)  # fmt: skip
_DAY = datetime(2026, 1, 31)
GREEDY = SampleConfig(samples=1, temperature=0.0)
_LEAST = 3.0


def bench_hint_lists(runs: int = 5, people: int = 48) -> Result:
    """Different queries a second for people, three lists each, by the model and the sizes of the demo. The peer is
    `generate` of transformers, a list at a time, with the same weights, cuts and grammar; it is asked for no log-probs.

    `ratio_lists`: of lists, of which both write as many. `ratio_together`: of lists, beside `generate` of all people
    and lists as one padded batch. `same_lists`: the share of greedy lists that are alike. Bar: three times the peer.
    """
    return _measured("demo", {}, people, runs)


def bench_hint_lists_smollm2(runs: int = 1, people: int = 4) -> Result:
    """The same by SmolLM2 after a few steps of LoRA; skipped where its package is not installed."""
    try:
        local_folder(SMOLLM2)
    except DataError as refusal:
        return {"skipped": f"{refusal.what}; {refusal.do}"}
    return _measured("bench", {"examples": 96, "written": 1}, people, runs)


def _measured(preset: Preset, differs: Mapping[str, Any], people: int, runs: int) -> Result:
    """Learn with the preset's settings, then write for so many others in turns."""
    with tempfile.TemporaryDirectory() as folder:
        model = learnt(Path(folder), preset, differs)
    config, told = SampleConfig(), [one.told for one in examples(people, model.lists.behaviours, "test", seed=1)]
    pairs = list(zip(greedy_lists(model, told), one_by_one(model, told, GREEDY), strict=True))
    found = sum(map(len, write_lists("lists", model, told, config, seed=0).queries))
    other = sum(_different(model, answers) for answers in one_by_one(model, told, config))
    ours, peer, together = in_turns(
        runs,
        lambda: write_lists("lists", model, told, config, seed=0),
        lambda: one_by_one(model, told, config),
        lambda: as_one_batch(model, told, config),
    )
    rates = found / ours, other / peer
    return {
        "ours": rates[0],
        "peer": rates[1],
        "unit": "queries/s",
        "runs": runs,
        "origin": "simulated",
        "within_bars": rates[0] >= _LEAST * rates[1],
        "ratio_lists": peer / ours,
        "ratio_together": together / ours,
        "same_lists": sum(own == theirs for own, theirs in pairs) / people,
        "people": people,
        "queries": found / people,
    }


def greedy_lists(model: HintModel, people: Sequence[Behaviours]) -> list[list[Tokens]]:
    """The likeliest list of each, as the system writes it."""
    return model.write(people, choice_of(model, GREEDY))


def one_by_one(model: HintModel, people: Sequence[Behaviours], config: SampleConfig) -> list[list[Tokens]]:
    """The same of `generate`: a prompt and an answer at a time."""
    with inference(model.model):
        return [[_generated(model, [one], 1, config)[0][0] for _ in range(config.samples)] for one in people]


def as_one_batch(model: HintModel, people: Sequence[Behaviours], config: SampleConfig) -> list[list[Tokens]]:
    """The same of `generate`: all prompts, padded, and all answers to each at once."""
    with inference(model.model):
        return _generated(model, people, config.samples, config)


@torch.inference_mode()
def _generated(
    model: HintModel, people: Sequence[Behaviours], answers: int, config: SampleConfig
) -> list[list[Tokens]]:
    ids, real = left_padded([model.prompts.of(one) for one in people], model.model.device)
    choice, end = choice_of(model, config), model.answers.end
    drawn = {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0} if config.temperature else {}
    written = model.model.generate(
        input_ids=ids,
        attention_mask=real.long(),
        do_sample=config.temperature > 0,
        **drawn,
        num_return_sequences=answers,
        max_new_tokens=model.answers.max_tokens,
        eos_token_id=end,
        pad_token_id=end,
        logits_processor=LogitsProcessorList([_within(choice.allowed, ids.shape[1])]),
    )[:, ids.shape[1] :]
    ended = [tuple(row[: row.index(end) + 1] if end in row else row) for row in written.tolist()]
    return [ended[start : start + answers] for start in range(0, len(ended), answers)]


def _within(allowed: Allowed | None, prompt: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A grammar for answers behind prompts of `prompt` tokens; `generate` masks before it divides and cuts."""

    def masked(ids: Tensor, scores: Tensor) -> Tensor:
        return scores if allowed is None else scores.masked_fill(~allowed(ids[:, prompt:]), float("-inf"))

    return masked


def _different(model: HintModel, answers: Sequence[Tokens]) -> int:
    """Queries that somebody is left with once their lists are merged."""
    return len({query.lower() for answer in answers for query in model.queries(answer)})


def learnt(folder: Path, preset: Preset, differs: Mapping[str, Any]) -> HintModel:
    """A model of Direct that has learnt lists with the preset's settings, and what differs from them."""
    settings = {stage.name: dict(stage.config[preset]) for stage in load_pipeline("query_rec", preset).stages}
    lists = parse_config(ListConfig, settings["lists"]["lists"], "lists")
    config = {**settings["il_sft_direct"], **differs}
    counts = {"train": int(config.get("examples", 600)), "valid": 32}
    made = [one for part, count in counts.items() for one in examples(count, lists.behaviours, part)]
    for name in ("lists", "il_sft_direct"):
        (folder / name).mkdir()
    (folder / "lists" / "lists").mkdir()
    Examples.write(folder / "lists" / "lists", lists, [made], [])
    out = folder / "il_sft_direct"
    il_sft.main(StageSpec("query_rec", out.name, str(out), 17, {}, {"lists": str(folder / "lists")}, config))
    return HintModel.load(out / "model")


def examples(count: int, behaviours: int, part: str, seed: int = 0) -> list[Example]:
    """People who searched for and looked at some of the things, and search for these and their like next."""
    rng, found = np.random.default_rng((seed, len(part))), list[Example]()
    for number in range(count):
        things, colours, makers = (rng.choice(own, 2, replace=False) for own in (_THINGS, _COLOURS, _MAKERS))
        queries = [f"{colour} {thing}" for thing in things for colour in colours]
        queries += [f"{maker} {thing}" for thing in things for maker in makers]
        length = int(rng.integers(1, behaviours + 1))
        actions = [SEARCH if place % 2 else "view" for place in range(length)]
        contents = [str(rng.choice(queries)) for _ in range(length)]
        days = sorted(rng.integers(0, 60, length).tolist(), reverse=True)
        person, told = Person(f"u{number}", _DAY, (), (), ()), Behaviours(days, actions, contents)
        labels = tuple(str(query) for query in rng.permutation(queries))
        sources = ("hint",) * len(labels)
        found.append(Example(person, told, DIRECT, f"r{number}", _DAY.date(), part, labels[:1], labels, sources))
    return found
