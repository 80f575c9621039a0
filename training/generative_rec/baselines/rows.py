"""The baselines by their names in tables and configs. A new one is a module beside this one, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from training.generative_rec.baselines.base import Baseline, Known
from training.generative_rec.baselines.covisit import CoVisit
from training.generative_rec.baselines.frequency import PersonalFrequency
from training.generative_rec.baselines.popularity import Popularity
from training.generative_rec.baselines.sasrec import SASRec, SASRecConfig

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
