"""The baselines by their names in tables and configs. A new one is a module beside this one, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from training.generative_rec.baselines.base import Baseline, Known
from training.generative_rec.baselines.covisit import CoVisit
from training.generative_rec.baselines.frequency import PersonalFrequency
from training.generative_rec.baselines.popularity import Popularity
from training.generative_rec.baselines.sasrec import SASRec, SASRecConfig
from training.next_item.samples import NextItem, before_held_out, of_subset, sequences_by_user, training_sequences

BaselineName = Literal["popularity", "frequency", "covisit", "sasrec"]
COUNTED: tuple[BaselineName, ...] = ("popularity", "frequency", "covisit")
"""Those that cost seconds, for whatever split."""


def rows(sasrec: SASRecConfig) -> Mapping[BaselineName, Callable[[Known], Baseline]]:
    """How each is fitted."""
    return {
        "popularity": Popularity,
        "frequency": PersonalFrequency,
        "covisit": CoVisit,
        "sasrec": lambda known: SASRec(known, sasrec),
    }


def fitted(
    name: BaselineName,
    catalogue: Sequence[str],
    samples: Sequence[NextItem],
    sasrec: SASRecConfig,
    rank_own: bool,
    seed: int,
) -> Baseline:
    """The row `name` of these samples; LeftOut where there is too little data for it."""
    pasts, valid = sequences_by_user(before_held_out(samples)), of_subset(samples, "valid")
    return rows(sasrec)[name](Known(catalogue, training_sequences(samples), pasts, valid, rank_own, seed))
