"""What a list is taught to be: queries by strength of interest, and for Think the behaviours behind each interest.

    Direct: Q = Concat(hints clicked, the ranker's best)
    Think:  Q = Concat(hints clicked, typed, the ranker's best, generated)          (AIGQ, section 2.3)

Earlier sources are more reliable, and a query stands at its first place. What a ranker or a model has added and that is
near to nothing the person did is left out: the paper has a language model say so, here nearness of texts does
(INFERRED).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.query_rec.interest_lists import Interest
from training.query_rec.query_lists import plain

Floats = NDArray[np.float32]
OBSERVED = ("hint", "typed")
"""Sources that say what the person did: never left out."""
SOURCES = (*OBSERVED, "rank", "generated")
"""From the most reliable on."""


@dataclass(frozen=True)
class LabelConfig:
    """All INFERRED. `most`: queries of a list. `fits`: a query that was added is at least so near (cosine) to something
    that the person did, and a query to the interest that it is of. `together`: behaviours whose mean nearness is at
    least that are one interest. `interests`, `queries`: at most so many, and of each so many queries."""

    most: int = 10
    fits: float = 0.3
    together: float = 0.4
    interests: int = 5
    queries: int = 4


def concatenated(by_source: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """All queries with their sources in the order of `SOURCES`, each once, whatever its case; empty ones are none."""
    found: dict[str, tuple[str, str]] = {}
    for source in SOURCES:
        for query in map(plain, by_source.get(source, ())):
            if query:
                found.setdefault(query.lower(), (query, source))
    return list(found.values())


def fitting(labels: Sequence[tuple[str, str]], near: Floats, config: LabelConfig) -> list[int]:
    """The places of the labels that stay, the first `most`: `near` [labels] is the cosine of each with the behaviour
    that it is nearest to, NaN where the person did nothing."""
    stays = [
        place
        for place, (_, source) in enumerate(labels)
        if source in OBSERVED or not near[place] < config.fits  # of nobody's past nothing can be said
    ]
    return stays[: config.most]


def interests_of(queries: Sequence[str], nearness: Floats, among: Floats, config: LabelConfig) -> list[Interest]:
    """The interests behind ordered `queries`: behaviours that lie together, and the queries that are nearest to them.

    `nearness` [queries, behaviours] and `among` [behaviours, behaviours] are cosines. A query is of the interest with
    the behaviour that it is nearest to, if it is near enough (`fits`); an interest that no query is of is none. They
    stand in the order of their first queries.
    """
    groups = _together(among, config.together)
    found: dict[int, list[int]] = {}
    for query in range(len(queries)):
        if len(groups) and nearness[query].max() >= config.fits:
            found.setdefault(int(groups[nearness[query].argmax()]), []).append(query)
    return [
        Interest(
            tuple((np.flatnonzero(groups == group) + 1).tolist()),
            tuple(queries[query] for query in own[: config.queries]),
        )
        for group, own in list(found.items())[: config.interests]
    ]


def _together(among: Floats, least: float) -> NDArray[np.int64]:
    """The group of each behaviour: average linkage, until no two groups have a mean cosine of at least `least`."""
    if len(among) < 2:
        return np.zeros(len(among), dtype=np.int64)
    from sklearn.cluster import AgglomerativeClustering

    apart = np.clip(1.0 - among.astype(np.float64), 0.0, 2.0)
    made = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1.0 - least + 1e-9
    )
    return np.asarray(made.fit(apart).labels_, dtype=np.int64)
