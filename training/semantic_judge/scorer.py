"""Part A on the language model: the levels of each aspect, and for whom a person wants to see them, the reasons.

Chances are read where the levels are asked for, each over all that may have been answered before it
(`core.level_chains`): nothing is written for them, and they are the same however many items are judged together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from common.config import parse_config
from training.core.backbone import save_backbone
from training.core.choice import Choice
from training.core.errors import DataError
from training.core.files import write_json
from training.core.generation import generate
from training.core.grammar import Allowed
from training.core.level_chains import LevelChain
from training.core.progress import Progress
from training.core.sequences import Tokens
from training.core.tokens import Vocabulary
from training.semantic_judge.answers import Answer, Answers
from training.semantic_judge.aspects import Aspect, Levels, aspects
from training.semantic_judge.engine import CoreEngine, Engine, Kind, load_engine
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Cases, Floats
from training.semantic_judge.prompts import CasePrompts, PromptConfig

_FILE = "scorer.json"
_CASES_AT_ONCE = 4096


@dataclass(frozen=True)
class _Stored:
    """What a folder says beside the weights. `context`: whether what is looked for is an aspect."""

    prompts: PromptConfig
    context: bool
    reason_tokens: int


@dataclass(frozen=True)
class LanguageScorer:
    """A language model as the `Scorer` of `judge`."""

    prompts: CasePrompts
    answers: Answers
    engine: Engine

    @classmethod
    def of(cls, model: PreTrainedModel, prompts: CasePrompts, reason_tokens: int) -> LanguageScorer:
        """On a model in this process, which may go on learning."""
        return cls(prompts, Answers(prompts.vocabulary, prompts.aspects, reason_tokens), CoreEngine(model))

    @property
    def aspects(self) -> Sequence[Aspect]:
        """See `Scorer`."""
        return self.prompts.aspects

    def chances(self, cases: Cases) -> list[Floats]:
        """See `Scorer`. The progress of many cases is shown."""
        chain = self.answers.chain
        found = [np.zeros((len(cases), len(aspect.values)), dtype=np.float32) for aspect in self.aspects]
        together = np.argsort(cases.state, kind="stable")  # the items of a user are read after one prompt
        with Progress(len(cases), "judging", "pair") as progress:
            for start in range(0, len(cases), _CASES_AT_ONCE):
                rows = together[start : start + _CASES_AT_ONCE]
                for own, read in zip(found, self._read(cases.chosen(rows), chain), strict=True):
                    own[rows] = read
                progress.advance(len(rows))
        return found

    def over(self, evidence: Evidence) -> LanguageScorer:
        """See `Scorer`."""
        return replace(self, prompts=replace(self.prompts, evidence=evidence))

    def _read(self, cases: Cases, chain: LevelChain) -> list[Floats]:
        trees, order = self.prompts.trees(cases)
        by_question = zip(*self.engine.chances(trees, chain), strict=True)
        back = np.argsort(order)
        return [torch.cat(list(own)).numpy().astype(np.float32)[back] for own in by_question]

    def free(self, cases: Cases) -> list[Answer | None]:
        """What the model writes greedily where nothing constrains it; None where that is no answer."""
        return [self.answers.read(tokens) for tokens in self._written(self.prompts.whole(cases), None)]

    def reasons(self, cases: Cases, levels: Levels) -> list[str]:
        """The reasons that the model writes for these levels [n, K] of the cases."""
        chosen = [
            tuple(own[level] for own, level in zip(self.answers.chain.tokens, row, strict=True))
            for row in levels.tolist()
        ]
        prompts = [prompt + own for prompt, own in zip(self.prompts.whole(cases), chosen, strict=True)]
        written = self._written(prompts, self.answers.reasons_allowed(self.model.config.vocab_size))
        return [self.answers.text(tokens) for tokens in written]

    def _written(self, prompts: Sequence[Tokens], allowed: Allowed | None) -> list[Tokens]:
        ends, choice = (self.answers.end,), Choice(0.0, allowed=allowed)
        written = generate(self.model.eval(), prompts, max_tokens=self.answers.max_tokens, ends=ends, choice=choice)
        return [answer for (answer,) in written]

    @property
    def model(self) -> PreTrainedModel:
        """The model in this process. DataError where another one holds it."""
        if not isinstance(self.engine, CoreEngine):
            raise DataError("this engine writes no reasons", do="set engine: core")
        return self.engine.model

    def save(self, folder: Path) -> None:
        """Write weights, vocabulary and how cases are put to the model into `folder`, all but the evidence."""
        config = _Stored(self.prompts.config, len(self.aspects) == len(aspects(True)), self.answers.reason_tokens)
        save_backbone(self.model, self.prompts.vocabulary, folder)
        write_json(folder / _FILE, asdict(config))

    @classmethod
    def load(cls, folder: Path, evidence: Evidence | None, engine: Kind = "core") -> LanguageScorer:
        """Read what `save` wrote. DataError for a folder that cannot be used, and where the prompt lacks evidence."""
        file = folder / _FILE
        if not file.is_file():
            raise DataError("the folder holds no scorer", where=str(file), do="give the `model` folder of its stage")
        stored = parse_config(_Stored, json.loads(file.read_text()), str(file))
        prompts = CasePrompts(Vocabulary.load(folder), aspects(stored.context), stored.prompts, evidence)
        return cls(
            prompts, Answers(prompts.vocabulary, prompts.aspects, stored.reason_tokens), load_engine(engine, folder)
        )
