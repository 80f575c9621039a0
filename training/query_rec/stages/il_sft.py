"""Stage: interest-list supervised tuning (AIGQ's IL-SFT), Direct or Think: cross-entropy on ordered lists.

With `interests: false` it is plain SFT, the row beside it: the same queries in an order of chance, and of Think no
reasons. Reads the lists of the stage `lists`; writes weights, vocabulary and `hint_model.json` to `model/`. The weights
of the lowest loss on validation are kept. Lost on a kill: the steps since the last checkpoint. Safe to run twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.core.backbone import BackboneConfig, build_backbone
from training.core.embedded import local_folder
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.loop import Loop, LoopConfig
from training.core.packing import Sample, Samples
from training.core.stage import StageResult, StageSpec, is_main_process, resolve_config
from training.core.tokens import train_text_tokenizer
from training.query_rec.examples import Example, Examples
from training.query_rec.hint_model import AnswerConfig, HintModel, vocabulary_of
from training.query_rec.hint_validation import HintValidation
from training.query_rec.interest_lists import Interest
from training.query_rec.prompts import length_figures, special_tokens

_MEASURED = 500  # prompts whose lengths are told


@dataclass(frozen=True)
class Config:
    """`lists`: the stage whose lists are learnt. `examples` and `valid_examples`: how many are used at most. `written`:
    for how many of the latter a list is written and told of. A backbone without a path has a text tokenizer of
    `text_vocabulary`."""

    lists: str = "lists"
    answers: AnswerConfig = field(default_factory=AnswerConfig)
    interests: bool = True
    examples: int = 20_000
    valid_examples: int = 1000
    written: int = 200
    text_vocabulary: int = 4096
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(max_positions=1024))
    loop: LoopConfig = field(default_factory=LoopConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, measure, and write `model/`."""
    config = resolve_config(spec, Config)
    lists = Examples.open(spec.artifact(config.lists) / "lists")
    form = config.answers.form
    train, valid = (
        [one for one in lists.read(form, {part}, most) if one.interests or form == "direct"]
        for part, most in (("train", config.examples), ("valid", config.valid_examples))
    )
    if not train or not valid:
        raise LeftOut(f"there is no list of form {form} to learn or to measure by", do="wait for more of the hint log")
    vocabulary = vocabulary_of(_tokenizer(config, train), lists.config)
    meanings = special_tokens(lists.config.behaviours)
    backbone = build_backbone(config.backbone, vocabulary, spec.seed, meanings)
    model = HintModel(backbone, vocabulary, config.answers, lists.config)
    learnt = train if config.interests else _in_any_order(train, spec.seed)
    samples, held_out = (Samples.of(map(model.sample, part)) for part in (learnt, valid))
    pad = int(vocabulary.tokenizer.pad_token_id)
    loop: Loop[Sample] = Loop(backbone, pad, config.loop, spec.seed, spec.out_dir, run=spec.hash)
    trained = loop.train(lambda _: samples, held_out)
    lengths = length_figures(model.prompts, [one.told for one in train[:_MEASURED]])
    found = HintValidation(model, valid[: config.written]).metrics()
    if is_main_process():
        with new_folder(spec.out_dir / "model") as scratch:
            model.save(scratch)
    sizes = {
        "examples": float(len(train)),
        "valid_examples": float(len(valid)),
        "steps": float(trained.steps),
        "best_step": float(trained.best_step),
        "valid_loss": trained.valid_loss,
        "tokens_per_second": trained.tokens_per_second,
        **{f"prompt_tokens.{name}": value for name, value in lengths.items()},
    }
    return StageResult({**found, **sizes}, resumed_from=trained.resumed_from)


def _tokenizer(config: Config, train: Sequence[Example]) -> PreTrainedTokenizerBase:
    """The backbone's own tokenizer, or a small one trained on what is told of people, on queries, and on reasons."""
    if config.backbone.path is not None:
        return AutoTokenizer.from_pretrained(local_folder(config.backbone.path), local_files_only=True)
    texts = (text for one in train for text in (*one.told.contents, *one.labels, one.reasons) if text)
    return train_text_tokenizer(texts, config.text_vocabulary)


def _in_any_order(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same queries in an order that says nothing, without reasons."""
    return [_shuffled(one, np.random.default_rng((seed, number))) for number, one in enumerate(examples)]


def _shuffled(one: Example, rng: np.random.Generator) -> Example:
    labels = tuple(one.labels[place] for place in rng.permutation(len(one.labels)))
    interests = tuple(one.interests[place] for place in rng.permutation(len(one.interests)))
    inside = tuple(
        Interest(own.triggers, tuple(own.queries[place] for place in rng.permutation(len(own.queries))))
        for own in interests
    )
    return replace(one, labels=labels, interests=inside, reasons="")
