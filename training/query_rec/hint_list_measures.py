"""What lists of hints are worth: against what was searched for on the day, and by themselves.

The paper prints no definitions; these are INFERRED. Of a day, with k the depth of the lists:

* `hit@k`, `recall@k`: whether a hint is one of the queries of the day, and the share of them that are hints;
* `new_recall@k`: the same share of what the person had never searched for before, of which `again` knows nothing;
* `category_hit@k`, `category_recall@k`: as `hit` and `recall`, of kinds. The kind of a query is the commonest one of
  what it finds;
* `similarity@k`: the mean over the day's queries of the best cosine with a hint;
* `categories@k`: how many kinds the hints are of;
* `servable@k`: the share of the hints that find enough in the day's catalogue; `written@k`: that the model wrote;
* `purchases@k`: the mean share of searches that a purchase follows, of the hints that somebody has searched for.

Texts are compared whatever their case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.core.metrics import Floats
from training.query_rec.hints import MODEL, Hint, HintFilter
from training.query_rec.list_maker import Encode
from training.query_rec.purchases import Purchases
from training.query_rec.query_lists import plain

NAMES = (
    "hit",
    "recall",
    "new_recall",
    "category_hit",
    "category_recall",
    "similarity",
    "categories",
    "servable",
    "written",
    "purchases",
)
"""By column; a day of which a measure asks nothing has NaN."""
OF_SOME = {
    "new_recall": "new_known",
    **dict.fromkeys(("category_hit", "category_recall"), "category_known"),
    "purchases": "purchases_known",
}
"""What only some days have, those with a new search, with a known kind, with a hint that somebody has searched for;
each with what counts those days."""


@dataclass(frozen=True)
class ListMeasures:
    """`observed`: what was searched for on each day; `before`: what the same person had searched for until then.
    `purchases`: of queries, as of the training days."""

    observed: Sequence[Sequence[str]]
    before: Sequence[Sequence[str]]
    hints: HintFilter
    purchases: Purchases
    encode: Encode
    depth: int

    @property
    def names(self) -> tuple[str, ...]:
        """The measures at this depth."""
        return tuple(f"{name}@{self.depth}" for name in NAMES)

    def values(self, lists: Sequence[Sequence[Hint]]) -> Floats:
        """[days, NAMES]"""
        cut = [own[: self.depth] for own in lists]
        texts = dict.fromkeys(hint.query for own in cut for hint in own) | dict.fromkeys(
            query for own in self.observed for query in own
        )
        vectors = dict(zip(texts, self.encode(list(texts)), strict=True)) if texts else {}
        days = zip(cut, self.observed, self.before, strict=True)
        rows = [self._day(own, day, before, vectors) for own, day, before in days]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))

    def _day(
        self,
        hints: Sequence[Hint],
        observed: Sequence[str],
        before: Sequence[str],
        vectors: Mapping[str, NDArray[np.float32]],
    ) -> tuple[float, ...]:
        shown, asked = {hint.query.lower() for hint in hints}, {query.lower() for query in observed}
        hit, recall = _found(shown, asked)
        _, new_recall = _found(shown, asked - {plain(query).lower() for query in before})
        kinds = {kind for hint in hints if (kind := self.hints.catalogue.kind(hint.query))}
        wanted = {kind for query in observed if (kind := self.hints.catalogue.kind(query))}
        near = 0.0
        if hints:
            own = np.stack([vectors[hint.query] for hint in hints])
            near = float(np.mean([(own @ vectors[query]).max() for query in observed]))
        servable = [self.hints.servable(hint.query) for hint in hints]
        written = [hint.source == MODEL for hint in hints]
        bought = [share for hint in hints if (share := self.purchases.share(hint.query)) is not None]
        shares = (float(np.mean(own)) if own else float("nan") for own in (servable, written, bought))
        return (hit, recall, new_recall, *_found(kinds, wanted), near, float(len(kinds)), *shares)


def _found(own: set[str], wanted: set[str]) -> tuple[float, float]:
    """Whether any of the `wanted` is there, and the share of them; NaN where nothing is wanted."""
    if not wanted:
        return float("nan"), float("nan")
    share = len(own & wanted) / len(wanted)
    return float(share > 0), share
