"""Part B: a language model that says how much each aspect counts for a user (S-GRec, arXiv 2602.10606).

It reads the user's state (profile, rated history and, as the paper's input x, what is looked for) and never an item to
judge. It writes one importance level per aspect, one token each, in the order of the aspects. What it is asked for is
not a drawn vector but the expected weights over all of them, so scores are smooth, and the same for the same words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from training.core.backbone import load_backbone, save_backbone
from training.core.errors import DataError
from training.core.files import write_json
from training.core.grammar import ByPlace
from training.core.level_chains import LevelChain, answer_chances
from training.core.policy.groups import Group
from training.core.prompts import Writer
from training.core.sequences import Tokens, Tree
from training.core.tokens import Vocabulary
from training.semantic_judge.aspects import Aspect
from training.semantic_judge.contests import won
from training.semantic_judge.examples import Catalogue, Floats, Ints, States
from training.semantic_judge.importance import LEVELS, all_levels, evenness, simplex
from training.semantic_judge.judge import Aggregator, OneVector, Uniform
from training.semantic_judge.user_prompt import UserPrompts

_FILE = "aggregator.json"
_KEPT = 1 << 16


@dataclass(frozen=True, eq=False)
class LevelWriter:
    """What a model needs to write levels: the `prompts` it is given and the tokens of the levels. It has no weights."""

    vocabulary: Vocabulary
    aspects: tuple[Aspect, ...]
    text_tokens: int

    @cached_property
    def prompts(self) -> UserPrompts:
        """User states as prompts."""
        return UserPrompts(Writer(self.vocabulary, self.text_tokens), self.aspects)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """The token of each level. DataError where the tokenizer has none for a digit."""
        found = [self.vocabulary.encode_text(str(level)) for level in range(LEVELS)]
        if any(len(tokens) != 1 for tokens in found):
            raise DataError("the tokenizer has no token for a digit", do="use a backbone whose tokenizer splits digits")
        return tuple(tokens[0] for tokens in found)

    @cached_property
    def grammar(self) -> ByPlace:
        """One level for each aspect and nothing else."""
        return ByPlace([self.tokens] * len(self.aspects), len(self.vocabulary))

    @property
    def chain(self) -> LevelChain:
        """The same, to weigh all vectors."""
        return LevelChain((self.tokens,) * len(self.aspects))

    @property
    def pad(self) -> int:
        """The token that fills up rows."""
        return int(self.vocabulary.tokenizer.pad_token_id)

    def answers(self, levels: Ints) -> list[Tokens]:
        """Vectors of levels [n, K] as a model writes them."""
        return [tuple(self.tokens[level] for level in row) for row in levels.tolist()]

    def levels(self, group: Group) -> Ints:
        """What the responses of a group say: [G, K]."""
        level = {token: place for place, token in enumerate(self.tokens)}
        return np.array([[level[token] for token in response.tokens] for response in group.responses])

    def reward(self, group: Group) -> Tensor:
        """Of each vector the share of the state's pairs that it orders rightly, strictly: [G].

        The weights are of the user: all pairs of a state judge the same vectors. A single pair is the paper's 0 or 1.
        """
        weights = simplex(self.levels(group))
        return torch.from_numpy(won(weights[:, None], group.request.context[None]).mean(axis=1))

    def evenness(self, group: Group) -> Tensor:
        """How evenly each vector lets the aspects count, 1 for uniform weights: [G]."""
        return torch.from_numpy(evenness(simplex(self.levels(group))))


def chances(model: PreTrainedModel, writer: LevelWriter, prompts: Sequence[Tokens]) -> NDArray[np.float64]:
    """How likely the model is to write each vector of `all_levels` after each prompt, under the grammar: [n, vectors].

    Exact (`core.level_chains`). DataError for a prompt that is longer than the model has room for.
    """
    model.eval()
    trees = [Tree(prompt[:-1], (prompt[-1:],)) for prompt in prompts]
    found = [one.numpy() for one in answer_chances(model, trees, writer.chain)]
    return np.concatenate([*found, np.zeros((0, LEVELS ** len(writer.aspects)))]).astype(np.float64)


def expected_weights(chances: NDArray[np.float64], aspects: int) -> Floats:
    """The mean weights [n, aspects] of vectors of levels with these chances [n, vectors]."""
    return np.asarray(chances @ simplex(all_levels(aspects)).astype(np.float64), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class LanguageAggregator:
    """A trained model. What it has said of a prompt is kept: the same user state is not read twice."""

    model: PreTrainedModel
    writer: LevelWriter
    _kept: dict[bytes, Floats] = field(default_factory=dict, repr=False)

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """Those that it weighs."""
        return self.writer.aspects

    def weights(self, states: States, catalogue: Catalogue) -> Floats:
        """See `Aggregator.weights`."""
        prompts = self.writer.prompts.of(states, catalogue)
        keys = [hashlib.sha256(np.array(prompt, dtype=np.int32).tobytes()).digest() for prompt in prompts]
        asked = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._kept}
        said = expected_weights(chances(self.model, self.writer, list(asked.values())), len(self.aspects))
        self._kept.update(zip(asked, said, strict=True))
        found = np.array([self._kept[key] for key in keys], dtype=np.float32).reshape(-1, len(self.aspects))
        for key in list(self._kept)[: max(0, len(self._kept) - _KEPT)]:
            del self._kept[key]
        return found


def save_aggregator(aggregator: LanguageAggregator | OneVector | Uniform, folder: Path) -> None:
    """Write it into `folder`: weights as safetensors, all else as JSON."""
    values: dict[str, object] = {"aspects": [aspect.name for aspect in aggregator.aspects], "kind": "uniform"}
    if isinstance(aggregator, LanguageAggregator):
        save_backbone(aggregator.model, aggregator.writer.vocabulary, folder)
        values |= {"kind": "language_model", "text_tokens": aggregator.writer.text_tokens}
    elif isinstance(aggregator, OneVector):
        values |= {"kind": "one_vector", "shares": list(aggregator.shares)}
    write_json(folder / _FILE, values)


def load_aggregator(folder: Path, aspects: Sequence[Aspect]) -> Aggregator:
    """Read what `save_aggregator` wrote; DataError where it weighs other `aspects`, or there is none."""
    path = folder / _FILE
    if not path.is_file():
        raise DataError("there is no aggregator", where=str(folder), do="give what the stage `aggregator` made")
    stored = json.loads(path.read_text())
    if stored["aspects"] != [aspect.name for aspect in aspects]:
        raise DataError(
            f"the aggregator weighs {', '.join(stored['aspects'])}",
            where=str(folder),
            why=f"the scorer scores {', '.join(aspect.name for aspect in aspects)}",
            do="train both on the same aspects",
        )
    if stored["kind"] == "uniform":
        return Uniform(aspects)
    if stored["kind"] == "one_vector":
        return OneVector(aspects, tuple(stored["shares"]))
    model, vocabulary = load_backbone(folder)
    return LanguageAggregator(model.eval(), LevelWriter(vocabulary, tuple(aspects), stored["text_tokens"]))
