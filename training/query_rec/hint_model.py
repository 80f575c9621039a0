"""The language model that writes hints, Direct or Think: how people are put to it, and how its answers are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.config import parse_config
from training.core.backbone import load_backbone, save_backbone
from training.core.choice import Choice
from training.core.errors import DataError
from training.core.files import write_json
from training.core.generation import generate
from training.core.packing import Sample
from training.core.policy.groups import Request, Response
from training.core.policy.variants.il_grpo import TokenSlots
from training.core.prompts import FENCES
from training.core.sequences import Tokens, Tree, by_tree, passes, token_log_probs
from training.core.tokens import Vocabulary
from training.query_rec.examples import Example, ListConfig
from training.query_rec.hints import Written
from training.query_rec.interest_lists import BORDERS, InterestLists, Interests
from training.query_rec.prompts import Behaviours, UserPrompts, special_tokens
from training.query_rec.query_lists import QueryLists
from training.query_rec.rewards import References

Form = Literal["direct", "think"]
_FILE = "hint_model.json"


@dataclass(frozen=True)
class AnswerConfig:
    """`form`: a flat list, or reasons and then interests. A content in a prompt has at most `text_tokens`, a profile
    `profile_tokens`; of an answer a query `query_tokens` and the reasons `reason_tokens`."""

    form: Form = "direct"
    text_tokens: int = 8
    profile_tokens: int = 32
    query_tokens: int = 12
    reason_tokens: int = 64


@dataclass(frozen=True)
class _Stored:
    answers: AnswerConfig = field(default_factory=AnswerConfig)
    lists: ListConfig = field(default_factory=ListConfig)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, lists: ListConfig) -> Vocabulary:
    """With a token for each small field of a prompt and each border of an answer, of both forms."""
    return Vocabulary.create(tokenizer, {}, (*FENCES, *BORDERS, *special_tokens(lists.behaviours)))


@dataclass(frozen=True)
class HintModel:
    """A model in this process, which may go on learning, with its prompts and answers."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    config: AnswerConfig
    lists: ListConfig

    @cached_property
    def prompts(self) -> UserPrompts:
        """How a person is put to it."""
        config = self.config
        return UserPrompts(self.vocabulary, self.lists.behaviours, config.text_tokens, config.profile_tokens)

    @cached_property
    def flat(self) -> QueryLists:
        """Answers of Direct."""
        return QueryLists(self.vocabulary, self.lists.labels.most, self.config.query_tokens)

    @cached_property
    def planned(self) -> InterestLists:
        """Answers of Think."""
        labels, config = self.lists.labels, self.config
        sizes = (self.lists.behaviours, labels.interests, labels.queries, config.query_tokens, config.reason_tokens)
        return InterestLists(self.vocabulary, *sizes)

    @property
    def thinks(self) -> bool:
        """Whether it writes reasons and interests."""
        return self.config.form == "think"

    @property
    def answers(self) -> QueryLists | InterestLists:
        """The answers that it writes."""
        return self.planned if self.thinks else self.flat

    @property
    def query_slots(self) -> TokenSlots:
        """Which query each token of an answer is of."""
        return self.planned.query_slots if self.thinks else self.flat.slots

    def sample(self, example: Example) -> Sample:
        """What is learnt of an example. DataError for Think without an interest: there is no such answer."""
        return Sample(self.prompts.of(example.told), self._answer(example))

    def request(self, example: Example) -> Request:
        """What a policy is asked, with the `References` that its answers are held against."""
        return Request(self.prompts.of(example.told), self._references(example))

    def queries(self, answer: Tokens) -> list[str]:
        """The queries of an answer in its order; none of what is no answer."""
        return list((self.answers.queries_of(answer) or {}).values())

    def write(
        self, people: Sequence[Behaviours], choice: Choice, samples: int = 1, seed: tuple[int, ...] = (0,)
    ) -> list[list[Tokens]]:
        """`samples` answers to each person, as tokens."""
        prompts = [self.prompts.of(person) for person in people]
        ends, most = (self.answers.end,), self.answers.max_tokens
        return generate(
            self.model.eval(), prompts, max_tokens=most, ends=ends, choice=choice, responses=samples, seed=seed
        )

    def written(self, people: Sequence[Behaviours], answers: Sequence[Sequence[Tokens]]) -> list[list[list[Written]]]:
        """The queries of each answer with the mean log-prob of their tokens, those of the answer's model."""
        trees = [Tree(self.prompts.of(who), tuple(own)) for who, own in zip(people, answers, strict=True)]
        found: dict[int, list[list[Written]]] = {}
        pad, longest = int(self.vocabulary.tokenizer.pad_token_id), max(map(len, trees), default=1)
        for numbers, batch, logits in passes(self.model, trees, pad, longest, rows=4):
            for number, values in zip(numbers, by_tree(token_log_probs(logits, batch), batch), strict=True):
                sizes = [len(answer) for answer in trees[number].responses]
                rows = zip(trees[number].responses, torch.split(values, sizes), strict=True)
                found[number] = [self._told(answer, own) for answer, own in rows]
        return [found[number] for number in range(len(trees))]

    def save(self, folder: Path) -> None:
        """Write weights, vocabulary and how people are put to it."""
        save_backbone(self.model, self.vocabulary, folder)
        write_json(folder / _FILE, asdict(_Stored(self.config, self.lists)))

    @classmethod
    def load(cls, folder: Path) -> HintModel:
        """Read what `save` wrote. DataError for a folder that cannot be used."""
        file = folder / _FILE
        if not file.is_file():
            raise DataError("the folder holds no model of hints", where=str(file), do="give the `model` of its stage")
        stored = parse_config(_Stored, json.loads(file.read_text()), str(file))
        model, vocabulary = load_backbone(folder)
        return cls(model, vocabulary, stored.answers, stored.lists)

    def _answer(self, example: Example) -> Tokens:
        if not self.thinks:
            return self.flat.written(example.labels)
        if not example.interests:
            raise DataError(
                "an example has no interest",
                where=f"{example.person.user_id}, {example.day}",
                do="learn Think of examples whose behaviours lead to a query",
            )
        return self.planned.written(Interests(example.reasons, example.interests))

    def _references(self, example: Example) -> References:
        if not self.thinks:
            return References(dict(enumerate(example.labels)))
        interests = list(enumerate(example.interests))
        slots = {self.planned.slot(n, place): query for n, one in interests for place, query in enumerate(one.queries)}
        return References(slots, [one.triggers for _, one in interests])

    def _told(self, answer: Tokens, log_probs: torch.Tensor) -> list[Written]:
        slots = torch.tensor(list(self.query_slots(Response(answer, ()))))
        queries = self.answers.queries_of(answer) or {}
        return [Written(query, float(log_probs[slots == slot].mean())) for slot, query in queries.items()]
