"""Interests as a language model writes them (AIGQ Think): why, and then which behaviours lead to which queries.

    reasons <plan> <n_3><n_7> <to> query <next> query <and> <n_1> <to> query <end>

The triggers of an interest are numbers of behaviours, as the prompt counts them (`prompts`). No text spells a border.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from training.core.policy.groups import Response
from training.core.policy.variants.il_grpo import NO_SLOT
from training.core.sequences import Tokens
from training.core.tokens import Vocabulary
from training.query_rec.prompts import number_token
from training.query_rec.query_lists import NEXT, plain, special_of, split_at

PLAN, TO, AND = "<plan>", "<to>", "<and>"
BORDERS = (NEXT, PLAN, TO, AND)
"""The special tokens of an answer; a vocabulary is made with them and those of the prompts."""


@dataclass(frozen=True)
class Interest:
    """The numbers of the behaviours that it shows in, from 1, rising, and the queries of it, the strongest first."""

    triggers: tuple[int, ...]
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Interests:
    """What an answer says."""

    reasons: str
    found: tuple[Interest, ...]


@dataclass(frozen=True)
class InterestLists:
    """Answers of at most `most` interests with `queries` each at most, a query of at most `query_tokens` tokens and the
    reasons of at most `reason_tokens`, to prompts of `behaviours` at most."""

    vocabulary: Vocabulary
    behaviours: int = 50
    most: int = 5
    queries: int = 4
    query_tokens: int = 16
    reason_tokens: int = 96

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.vocabulary.tokenizer.eos_token_id)

    @property
    def max_tokens(self) -> int:
        """Of the longest answer."""
        interest = self.behaviours + 1 + self.queries * (self.query_tokens + 1)
        return self.reason_tokens + 1 + self.most * interest

    def written(self, answer: Interests) -> Tokens:
        """What is learnt: the first interests, queries and tokens that there is room for, triggers rising."""
        plan, to, between, also = (self._border[name] for name in (PLAN, TO, NEXT, AND))
        tokens = [*self.vocabulary.encode_text(answer.reasons)[: self.reason_tokens], plan]
        for interest in answer.found[: self.most]:
            tokens += (*(self._numbers[one] for one in sorted(interest.triggers)), to)
            for query in interest.queries[: self.queries]:
                tokens += (*self.vocabulary.encode_text(query)[: self.query_tokens], between)
            tokens[-1] = also
        return (*tokens[:-1], self.end)

    def read(self, tokens: Tokens) -> Interests | None:
        """What an answer says; None where it is none: no end or plan, more than there is room for, an interest without
        triggers or queries, triggers that do not rise, or a special token where words are asked for."""
        if tokens[-1:] != (self.end,) or tokens.count(self._border[PLAN]) != 1:
            return None
        at = tokens.index(self._border[PLAN])
        reasons, parts = tokens[:at], list(split_at(tokens[at + 1 : -1], self._border[AND]))
        found = [self._interest(part) for part in parts]
        if len(reasons) > self.reason_tokens or self._special.intersection(reasons) or len(found) > self.most:
            return None
        whole = tuple(one for one in found if one)
        return Interests(self._text(reasons), whole) if len(whole) == len(found) else None

    def query_slots(self, response: Response) -> list[int]:
        """The query that each token is of, as `slot` counts them; what ends a query is of it (INFERRED). Reasons, the
        plan, triggers and the end are of none, as is every token of what is no answer."""
        return self._slots(response, of_queries=True)

    def trigger_slots(self, response: Response) -> list[int]:
        """The interest whose triggers each token is of, `<to>` among them (INFERRED)."""
        return self._slots(response, of_queries=False)

    def slot(self, interest: int, place: int) -> int:
        """The number of the query at this place of this interest, both from 0."""
        return interest * self.queries + place

    def queries_of(self, tokens: Tokens) -> Mapping[int, str] | None:
        """The queries of an answer by their slots; None where it is none."""
        answer = self.read(tokens)
        if answer is None:
            return None
        pairs = enumerate(answer.found)
        return {self.slot(n, place): query for n, one in pairs for place, query in enumerate(one.queries)}

    def triggers_of(self, tokens: Tokens) -> list[tuple[int, ...]]:
        """The triggers of each interest; none of what is no answer."""
        answer = self.read(tokens)
        return [one.triggers for one in answer.found] if answer else []

    def _slots(self, response: Response, *, of_queries: bool) -> list[int]:
        tokens = response.tokens
        if self.read(tokens) is None:
            return [NO_SLOT] * len(tokens)
        at = tokens.index(self._border[PLAN])
        found, interest, place, asked = [NO_SLOT] * (at + 1), 0, 0, False
        for token in tokens[at + 1 : -1]:
            own = self.slot(interest, place) if asked else interest
            found.append(own if asked == of_queries else NO_SLOT)
            if token == self._border[TO]:
                asked = True
            elif token == self._border[NEXT]:
                place += 1
            elif token == self._border[AND]:
                interest, place, asked = interest + 1, 0, False
        return [*found, NO_SLOT]

    def _interest(self, tokens: Tokens) -> Interest | None:
        if tokens.count(self._border[TO]) != 1:
            return None
        at = tokens.index(self._border[TO])
        triggers = [self._places.get(token, 0) for token in tokens[:at]]
        parts = list(split_at(tokens[at + 1 :], self._border[NEXT]))
        rising = bool(triggers) and all(a < b for a, b in zip([0, *triggers], triggers, strict=False))
        fits = len(parts) <= self.queries and all(len(part) <= self.query_tokens for part in parts)
        if not (rising and fits) or any(self._special.intersection(part) for part in parts):
            return None
        queries = tuple(self._text(part) for part in parts)
        return Interest(tuple(triggers), queries) if all(queries) else None

    def _text(self, tokens: Tokens) -> str:
        return plain(str(self.vocabulary.tokenizer.decode(list(tokens))))

    @cached_property
    def _border(self) -> Mapping[str, int]:
        return {name: self.vocabulary.token(name) for name in BORDERS}

    @cached_property
    def _numbers(self) -> Mapping[int, int]:
        return {place: self.vocabulary.token(number_token(place)) for place in range(1, self.behaviours + 1)}

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {token: place for place, token in self._numbers.items()}

    @cached_property
    def _special(self) -> frozenset[int]:
        return special_of(self.vocabulary)
