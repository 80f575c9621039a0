"""What may follow in an answer, so that whatever is drawn is a list that can be read.

For serving and for measuring. A policy is asked without it: there what is no list earns less for being none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from training.core.sequences import Tokens
from training.core.tokens import Vocabulary
from training.query_rec.interest_lists import AND, PLAN, TO, InterestLists
from training.query_rec.prompts import number_token
from training.query_rec.query_lists import NEXT, QueryLists, plain, special_of, split_at

_WORDS, _FIRST = -1, -2
"""Stand for all tokens of words, and for those that a query may begin with: what is not blank."""


@dataclass(frozen=True)
class FlatGrammar:
    """Of Direct, in a vocabulary of `size` tokens; see `grammar.Allowed`."""

    lists: QueryLists
    size: int

    def __call__(self, written: Tensor) -> Tensor:
        """[n, size]"""
        return _masks([self._following(tuple(row)) for row in written.tolist()], self._words, written.device)

    def _following(self, written: Tokens) -> tuple[int, ...]:
        lists = self.lists
        query = written[len(written) - written[::-1].index(lists.next) :] if lists.next in written else written
        words = (_WORDS,) if len(query) < lists.query_tokens else ()
        another = (lists.next,) if written.count(lists.next) + 1 < lists.most else ()
        return (*words, *another, lists.end) if query else (_FIRST,)

    @cached_property
    def _words(self) -> Mapping[int, Tensor]:
        return _words(self.lists.vocabulary, self.size)


@dataclass(frozen=True)
class PlannedGrammar:
    """Of Think; see `FlatGrammar`."""

    lists: InterestLists
    size: int

    def __call__(self, written: Tensor) -> Tensor:
        """[n, size]"""
        return _masks([self._following(tuple(row)) for row in written.tolist()], self._words, written.device)

    def _following(self, written: Tokens) -> tuple[int, ...]:
        lists = self.lists
        if self._plan not in written:
            return (_WORDS, self._plan) if len(written) < lists.reason_tokens else (self._plan,)
        interests = list(split_at(written[written.index(self._plan) + 1 :], self._and))
        interest = interests[-1]
        if self._to not in interest:
            last = self._numbers.index(interest[-1]) + 1 if interest else 0
            more = self._numbers[last:]
            return (*more, self._to) if interest else more
        queries = list(split_at(interest[interest.index(self._to) + 1 :], self._next))
        words = (_WORDS,) if len(queries[-1]) < lists.query_tokens else ()
        if not queries[-1]:
            return (_FIRST,)
        another = (self._next,) if len(queries) < lists.queries else ()
        further = (self._and,) if len(interests) < lists.most else ()
        return (*words, *another, *further, lists.end)

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        tokens = self.lists.vocabulary
        return tuple(tokens.token(number_token(place)) for place in range(1, self.lists.behaviours + 1))

    @cached_property
    def _words(self) -> Mapping[int, Tensor]:
        return _words(self.lists.vocabulary, self.size)

    @cached_property
    def _plan(self) -> int:
        return self.lists.vocabulary.token(PLAN)

    @cached_property
    def _to(self) -> int:
        return self.lists.vocabulary.token(TO)

    @cached_property
    def _and(self) -> int:
        return self.lists.vocabulary.token(AND)

    @cached_property
    def _next(self) -> int:
        return self.lists.vocabulary.token(NEXT)


def grammar_of(lists: QueryLists | InterestLists, size: int) -> FlatGrammar | PlannedGrammar:
    """The grammar of this form of answers."""
    return FlatGrammar(lists, size) if isinstance(lists, QueryLists) else PlannedGrammar(lists, size)


def _words(vocabulary: Vocabulary, size: int) -> Mapping[int, Tensor]:
    """The masks [size] that `_WORDS` and `_FIRST` stand for."""
    words = torch.zeros(size, dtype=torch.bool)
    words[: len(vocabulary)] = True
    words[list(special_of(vocabulary))] = False
    texts = vocabulary.tokenizer.batch_decode([[token] for token in range(len(vocabulary))])
    blank = [token for token, text in enumerate(texts) if not plain(text)]
    first = words.clone()
    first[blank] = False
    return {_WORDS: words, _FIRST: first}


def _masks(following: Sequence[tuple[int, ...]], words: Mapping[int, Tensor], device: torch.device) -> Tensor:
    """[n, size]; most answers of a step may go on alike, and a mask is made once."""
    kinds = {own: kind for kind, own in enumerate(dict.fromkeys(following))}
    found = torch.zeros(len(kinds), len(words[_WORDS]), dtype=torch.bool)
    for row, own in zip(found, kinds, strict=True):
        for token in own:
            if token < 0:
                row |= words[token]
        row[[token for token in own if token >= 0]] = True
    return found[[kinds[own] for own in following]].to(device)
