"""The same list for everyone: items by how often the training part holds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.generative_rec.baselines.base import Baseline, Scores


class Popularity(Baseline):
    """score(i) = count of i in the training part."""

    def scores(self, histories: Sequence[Sequence[int]]) -> Scores:
        """See `Baseline.scores`."""
        return np.tile(self.popularity, (len(histories), 1))
