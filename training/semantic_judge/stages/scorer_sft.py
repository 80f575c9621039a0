"""Stage: supervised tuning of the language model as Part A: the labels' levels first, then their reasons.

Learnt are the answers alone (`lessons.samples_of`). The weights of the epoch that scores the validation part best are
kept: by the mean of PointAcc and PairAUC on the path on which it is served, as the loss of tokens is mostly of reasons.
Rows of the comparison are one stage each: `prompts: {evidence: false}` sees titles alone.

Reads the labels and the evidence of earlier stages and what the examples are made of; writes weights, vocabulary and
`scorer.json` to `model/`. Lost on a kill: the steps since the last checkpoint. Safe to run twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.core.backbone import BackboneConfig, build_backbone
from training.core.embedded import local_folder
from training.core.files import new_folder
from training.core.loop import Loop, LoopConfig, Trained
from training.core.packing import Sample
from training.core.prompts import FENCES
from training.core.stage import StageResult, StageSpec, is_main_process, resolve_config
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.semantic_judge.labelled import Labelled, read_labelled
from training.semantic_judge.lessons import samples_of
from training.semantic_judge.marks import majority
from training.semantic_judge.prompts import TEXTS, CasePrompts, PromptConfig
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.scorer_validation import ScorerValidation


@dataclass(frozen=True)
class Config:
    """`examples` and `valid_examples`: how many are used at most, by whole user states. A reason has at most
    `reason_tokens`. A backbone without a path has a text tokenizer of `text_tokens`."""

    prompts: PromptConfig = field(default_factory=PromptConfig)
    reason_tokens: int = 24
    examples: int = 20_000
    valid_examples: int = 2000
    text_tokens: int = 1024
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(max_positions=1024))
    loop: LoopConfig = field(default_factory=LoopConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, measure, and write `model/`."""
    config = resolve_config(spec, Config)
    train, valid = read_labelled(spec, config.examples, config.valid_examples)
    vocabulary = Vocabulary.create(_tokenizer(config, train), {}, FENCES)
    prompts = CasePrompts(vocabulary, train.aspects, config.prompts, train.evidence)
    model = build_backbone(config.backbone, vocabulary, spec.seed)
    scorer = LanguageScorer.of(model, prompts, config.reason_tokens)
    validation = ScorerValidation(scorer, valid)
    samples, held_out = (samples_of(prompts, scorer.answers, part, spec.seed) for part in (train, valid))
    pad = int(vocabulary.tokenizer.pad_token_id)
    loop: Loop[Sample] = Loop(model, pad, config.loop, spec.seed, spec.out_dir, run=spec.hash)
    trained = loop.train(lambda _: samples, held_out, validation.loss, start_counts=False)
    found = {**validation.metrics(spec.seed), "majority": majority(valid.levels, train.levels)}
    if is_main_process():
        with new_folder(spec.out_dir / "model") as scratch:
            scorer.save(scratch)
    return StageResult({**found, **_sizes(trained, train, valid)}, resumed_from=trained.resumed_from)


def _tokenizer(config: Config, train: Labelled) -> PreTrainedTokenizerBase:
    """The backbone's own tokenizer, or a small one trained on titles, on what prompts say, and on reasons."""
    if config.backbone.path is not None:
        return AutoTokenizer.from_pretrained(local_folder(config.backbone.path), local_files_only=True)
    titles = sorted(item.title or "" for item in train.cases.catalogue.items)
    said = train.evidence.words(train.evidence.numbers(train.cases))
    texts = [*titles, *said, *TEXTS * len(said), *filter(None, train.reasons)]
    return train_text_tokenizer(texts, config.text_tokens)


def _sizes(trained: Trained, train: Labelled, valid: Labelled) -> dict[str, float]:
    return {
        "examples": float(len(train)),
        "valid_examples": float(len(valid)),
        "steps": float(trained.steps),
        "best_step": float(trained.best_step),
        "tokens_per_second": trained.tokens_per_second,
    }
