"""What the lists, and the policy that writes them, ask of a ranker of hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.query_rec.people import Person


class ClickRanker(Protocol):
    """A ranker that knows any text; `version` stands beside every reward that it gave."""

    @property
    def version(self) -> str:
        """Of its weights."""

    def chances(self, people: Sequence[Person], queries: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """How likely a click on each query is, for each of the people: arrays of as many chances as queries."""
