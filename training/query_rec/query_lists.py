"""A flat list of queries as a language model writes it (AIGQ Direct): one decode, from the strongest interest on.

Queries are text with the token `<next>` between them and the end token behind the last, so no query can spell a border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from training.core.policy.groups import Response
from training.core.policy.variants.il_grpo import NO_SLOT
from training.core.sequences import Tokens
from training.core.tokens import Vocabulary

NEXT = "<next>"
"""The special token between two queries; a vocabulary is made with it."""


@dataclass(frozen=True)
class QueryLists:
    """Lists of at most `most` queries, each of at most `query_tokens` tokens."""

    vocabulary: Vocabulary
    most: int = 10
    query_tokens: int = 16

    @property
    def max_tokens(self) -> int:
        """Of the longest list: each query with the token behind it."""
        return self.most * (self.query_tokens + 1)

    @cached_property
    def next(self) -> int:
        """The token between two queries."""
        return self.vocabulary.token(NEXT)

    @property
    def end(self) -> int:
        """The token that ends a list."""
        return int(self.vocabulary.tokenizer.eos_token_id)

    def written(self, queries: Sequence[str]) -> Tokens:
        """What is learnt: the first `most` of the queries, each cut to `query_tokens`."""
        tokens = list[int]()
        for query in queries[: self.most]:
            tokens += (*self.vocabulary.encode_text(query)[: self.query_tokens], self.next)
        return (*tokens[:-1], self.end)

    def read(self, tokens: Tokens) -> tuple[str, ...] | None:
        """The queries, as `plain` words; None where it is no list: no end, more than `most` queries, an empty or too
        long one, or another special token among them."""
        if tokens[-1:] != (self.end,):
            return None
        parts = list(split_at(tokens[:-1], self.next))
        fits = len(parts) <= self.most and all(len(part) <= self.query_tokens for part in parts)
        if not fits or any(self._special.intersection(part) for part in parts):
            return None
        queries = tuple(plain(str(self.vocabulary.tokenizer.decode(list(part)))) for part in parts)
        return queries if all(queries) else None

    def queries_of(self, tokens: Tokens) -> Mapping[int, str] | None:
        """The queries by their slots, which are their places; None where it is no list."""
        queries = self.read(tokens)
        return None if queries is None else dict(enumerate(queries))

    def slots(self, response: Response) -> list[int]:
        """The query that each token is of, for `il_grpo`: a separator is of the query that it ends (INFERRED).

        The end token is of none: where a list ends is a matter of the list. Nor are the tokens of what is no list,
        which only learn that it was none.
        """
        if self.read(response.tokens) is None:
            return [NO_SLOT] * len(response.tokens)
        found, query = list[int](), 0
        for token in response.tokens[:-1]:
            found.append(query)
            query += token == self.next
        return [*found, NO_SLOT]

    @cached_property
    def _special(self) -> frozenset[int]:
        return special_of(self.vocabulary)


def plain(words: str) -> str:
    """A query without spaces around it, and one space for each run of them, as `query_samples` has them."""
    return " ".join(words.split())


def split_at(tokens: Tokens, border: int) -> Iterator[Tokens]:
    """The runs of tokens between the borders, empty ones too."""
    start = 0
    for place, token in enumerate(tokens):
        if token == border:
            yield tokens[start:place]
            start = place + 1
    yield tokens[start:]


def special_of(vocabulary: Vocabulary) -> frozenset[int]:
    """The tokens that no text has."""
    known = vocabulary.tokenizer.added_tokens_decoder
    return frozenset(number for number, token in known.items() if token.special)
