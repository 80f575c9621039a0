"""What the shop's ranker says of a history, for stages that align the generator with it.

A ranker has learnt from the very training part that the generator is aligned on: what it says after a training history
has seen the answer, and all that the user took later. So an answer looks better to it than a new one will, and so do
the user's own later items; no event that is held out is in it (`RankerView.of` sees to that). But it has made its
choices, stopped and been calibrated on the validation part, by which an aligned stage chooses its weights and passes
its gate: validation is kind to what follows the ranker, and only test says what it is worth (docs/LOG.md). Its signals
of the early days, which have not seen the answers, are not packaged. Who asks avoids what can be avoided: a history
does not say whose it is, as what is known of the user would be the answer itself, and the answer, which is known
anyway, is not asked about: it is no soft target, earns no more than the hit, and is no measure of what is unlikely. Nor
is what the user took later a soft target. Nobody has seen what follows the end of a training sequence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec
from training.next_item.recommender import ListRequest, Ranking
from training.next_item.samples import Split, of_subset, read_samples
from training.next_item.store_features import StoreFeatures
from training.ranker.serve import RankerRow, bundle_of
from training.ranker.signals.base import Floats

RANKER = "ranker"


class Past(Protocol):
    """What was known before something was taken: a history, and what the feature store said of the user as of then."""

    @property
    def history(self) -> Sequence[str]:
        """Item ids, oldest first."""

    @property
    def store_features(self) -> StoreFeatures:
        """By full name; what is unknown is not in it."""


@dataclass(frozen=True)
class RankerView:
    """The ranker, asked for histories of nobody in particular."""

    row: RankerRow

    @classmethod
    def of(cls, spec: StageSpec, split: Split) -> Self:
        """The newest ranker that the spec names, of the same `split` as the stage.

        Raises:
            LeftOut: there is none yet, or it has learnt of what this run holds out: of days, as one of a later day
                does, or of the validation part of each user.
            DataError: it was fitted for another split.
        """
        bundle = bundle_of(spec.models.get(RANKER, ()))
        if bundle is None or bundle.ranker is None:
            raise LeftOut("no ranker has been trained yet", do="run the ranker's training, and then this one again")
        if bundle.split != split:
            raise DataError(
                f"the ranker was fitted for the split {bundle.split}, and this is a run of {split}",
                why="what one split trains on, another one tests",
                do="give a ranker of the same `split`",
            )
        if split == "leave_one_out" and bundle.learnt_from != "train":
            raise LeftOut(
                "the ranker has learnt from the validation part, by which this run chooses, or does not say from which",
                do="train the ranker with `learn_from: train`",
            )
        train = of_subset(read_samples(spec, split), "train")
        if bundle.until > train.days[train.rows].max():
            raise LeftOut(
                "the ranker has learnt of days after the training part, which are held out here",
                do="run the ranker's training on the same days",
            )
        return cls(RankerRow(bundle, bundle.ranker))

    @property
    def rank_own(self) -> bool:
        """Whether the shop recommends what the user has taken before."""
        return self.row.bundle.rank_own

    @property
    def store_features(self) -> Sequence[str]:
        """What the ranker wants to know of the feature store."""
        return self.row.store_features

    def lists(
        self,
        pasts: Sequence[Past],
        k: int,
        within: Collection[str],
        left_out: Sequence[Collection[str]] | None = None,
    ) -> list[Ranking]:
        """The first `k` items `within` after each history, with the probability that each is taken next.

        `left_out`: items of each question that stand in no list, beside what a shop without repeats leaves out.
        """
        return self.row.answer(self._asked(pasts, left_out or [()] * len(pasts)), k, within)

    def chances(self, pasts: Sequence[Past], items: Sequence[Sequence[str]]) -> list[Floats]:
        """The probabilities of given `items` after each history: [items] each; see `RankerRow.chances`."""
        return self.row.chances(self._asked(pasts, [()] * len(pasts)), items)

    def _asked(self, pasts: Sequence[Past], left_out: Sequence[Collection[str]]) -> list[ListRequest]:
        own = [ListRequest.after(one.history, None, one.store_features, rank_own=self.rank_own) for one in pasts]
        return [replace(one, left_out=one.left_out.union(gone)) for one, gone in zip(own, left_out, strict=True)]
