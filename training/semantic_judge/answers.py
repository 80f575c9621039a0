"""What the language model answers: a level of each aspect, one token each in their fixed order, then the reasons.

A level is written as its place on the grid, one digit. A digit is a character of its own in every byte-level
vocabulary, so it is one token in each of them, in a small one of titles as in SmolLM2's, and no other text is joined to
it. Levels come first: nothing that is written later can move them, and they are read without a word being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from training.core.errors import DataError
from training.core.grammar import Allowed, Banned, Both, ByPlace
from training.core.level_chains import LevelChain
from training.core.sequences import Tokens
from training.core.tokens import Vocabulary
from training.semantic_judge.aspects import Aspect


@dataclass(frozen=True)
class Answer:
    """`levels`: the place on each aspect's grid."""

    levels: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Answers:
    """Answers as token ids; a reason has at most `reason_tokens` tokens."""

    vocabulary: Vocabulary
    aspects: Sequence[Aspect]
    reason_tokens: int = 32

    @cached_property
    def chain(self) -> LevelChain:
        """The tokens of each aspect's levels. DataError where the vocabulary has none of one token."""
        return LevelChain(tuple(tuple(map(self._digit, range(len(aspect.values)))) for aspect in self.aspects))

    @property
    def max_tokens(self) -> int:
        """Of the longest answer, its end among them."""
        return len(self.aspects) + self.reason_tokens + 1

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.vocabulary.tokenizer.eos_token_id)

    def written(self, levels: Sequence[int], reason: str | None) -> Tokens:
        """The answer that is learnt: the levels of all aspects, and as much of the reason as there is room for."""
        tokens = [own[level] for own, level in zip(self.chain.tokens, levels, strict=True)]
        return (*tokens, *self.vocabulary.encode_text(f" {reason}" if reason else "")[: self.reason_tokens], self.end)

    def read(self, tokens: Tokens) -> Answer | None:
        """What an answer says; None where it is none: a level that is not on its grid, another order, a special token
        among the reasons, or no end."""
        count = len(self.aspects)
        levels, reason, last = tokens[:count], tokens[count:-1], tokens[-1:]
        fits = len(levels) == count and all(map(tuple.__contains__, self.chain.tokens, levels))
        if not fits or last != (self.end,) or len(tokens) > self.max_tokens or self._special.intersection(reason):
            return None
        places = tuple(own.index(token) for own, token in zip(self.chain.tokens, levels, strict=True))
        return Answer(places, self.text(reason))

    def text(self, reason: Tokens) -> str:
        """The words of a reason."""
        return str(self.vocabulary.tokenizer.decode(list(reason), skip_special_tokens=True)).strip()

    def allowed(self, size: int) -> Allowed:
        """The grammar of an answer in a vocabulary of `size` tokens: levels first, then the reasons."""
        return Both([ByPlace(self.chain.tokens, size), self.reasons_allowed(size)])

    def reasons_allowed(self, size: int) -> Allowed:
        """Words without special tokens, or the end."""
        return Banned(sorted({*self._special, *range(len(self.vocabulary), size)} - {self.end}), size)

    @cached_property
    def _special(self) -> frozenset[int]:
        known = self.vocabulary.tokenizer.added_tokens_decoder
        return frozenset(number for number, token in known.items() if token.special)

    def _digit(self, place: int) -> int:
        tokens = self.vocabulary.encode_text(str(place))
        if len(tokens) != 1:
            raise DataError(
                f"the digit {place} is {len(tokens)} tokens in this vocabulary",
                why="a level is one token, so that all levels are read where one token is asked for",
                do="use a backbone with a byte-level vocabulary",
            )
        return tokens[0]
