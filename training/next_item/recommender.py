"""Who recommends items for a history: the same call for rules, rankers and generative models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from training.next_item.store_features import StoreFeatures

Ranking = list[tuple[str, float]]


@dataclass(frozen=True)
class ListRequest:
    """One history (item ids, oldest first), whose it is where that is known, what may not be ranked for it, and what
    the feature store says of the user now: whoever takes nothing of it reads over it."""

    history: Sequence[str]
    user: str | None
    left_out: frozenset[str]
    store_features: StoreFeatures = field(default_factory=dict, hash=False)

    @classmethod
    def after(cls, history: Sequence[str], user: str | None, store_features: StoreFeatures, *, rank_own: bool) -> Self:
        """What comes after a history; `rank_own`: may its own items be ranked."""
        return cls(history, user, frozenset(() if rank_own else history), store_features)


class Choice(NamedTuple):
    """What was chosen, in words, and the NDCG@10 on validation that chose it."""

    words: str
    ndcg: float


class Recommender(ABC):
    """Item ids with scores for each history, best first; the same call for baselines and generative models.

    `catalogue`: the items that it knows. `choice`: what the row has chosen on validation; None where there was nothing
    to choose. `rank_own`: does the shop that it serves recommend what a user has taken before. `store_features`: what
    it wants to know of a user from the feature store, by full name.
    """

    catalogue: Sequence[str]
    choice: Choice | None = None
    rank_own: bool = True
    store_features: Sequence[str] = ()

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        *,
        users: Sequence[str] | None = None,
        rank_own: bool = True,
        within: Collection[str] | None = None,
    ) -> list[Ranking]:
        """The first `k` items for each history (item ids, oldest first; may be empty); fewer where the catalogue ends.

        Items of a history that the catalogue does not have (any more) are read over. `users` says whose histories they
        are, for models that know users. `rank_own` says whether the items of the history itself may be ranked; `within`
        are the items to choose from, of those that it knows (None: all).
        """
        asking: Sequence[str | None] = users or [None] * len(histories)
        pairs = zip(histories, asking, strict=True)
        asked = [ListRequest.after(own, user, {}, rank_own=rank_own) for own, user in pairs]
        return self.answer(asked, k, within)

    @abstractmethod
    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """The first `k` items `within` for each that is asked."""
