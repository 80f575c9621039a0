"""The examples that a model is aligned and validated with, and how well it ranks on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from transformers import PreTrainedModel

from training.core.decoding import beam_search, valid_id_rate
from training.core.device import in_shares
from training.core.errors import LeftOut
from training.core.metrics import Floats, ndcg_at
from training.core.prompts import Codes
from training.generative_rec.item_codes import ItemCodes
from training.next_item.samples import NextItem
from training.next_item.store_features import StoreFeatures

EVAL_AT = 10
EVAL_BEAMS = 2 * EVAL_AT


@dataclass(frozen=True)
class Example:
    """A prompt, and what the customer took: the row of the item in the catalogue. `history`: the ids of all items that
    were taken before; `store_features`: what the feature store said of the customer then, where it was asked for;
    `as_of`: the day before which all that was."""

    user_id: str
    prompt: Codes
    item: int
    history: tuple[str, ...] = ()
    store_features: StoreFeatures = field(default_factory=dict, hash=False)
    as_of: date = date.max


def draw(samples: Sequence[NextItem], limit: int, seed: int) -> list[NextItem]:
    """At most `limit` of the samples, drawn with the seed, in their order. Raises LeftOut where there is none."""
    if not samples:
        raise LeftOut(
            "a part of the split has no samples",
            why="a model is aligned on training samples and validated on validation samples",
            do="move the cut dates of the split, or choose another `split`",
        )
    return [samples[n] for n in np.sort(np.random.default_rng(seed).permutation(len(samples))[:limit])]


def draw_examples(samples: Sequence[NextItem], items: ItemCodes, history: int, limit: int, seed: int) -> list[Example]:
    """What `draw` takes of the samples; the prompts have the last `history` items.

    A training sample does not say whose it is: the customer's code is pooled over its answer too.
    """
    drawn = draw(samples, limit, seed)
    names = [None if one.subset == "train" else one.user_id for one in drawn]
    return [
        Example(
            one.user_id,
            items.prompt(one.history, history, name),
            items.row[one.item_id],
            one.history,
            one.store_features,
            one.as_of,
        )
        for one, name in zip(drawn, names, strict=True)
    ]


@dataclass(frozen=True)
class Validation:
    """A model on validation examples: what it recommends, and what it would write if it were free."""

    model: PreTrainedModel
    items: ItemCodes
    examples: Sequence[Example]

    def gains(self) -> Floats:
        """NDCG@10 of each example under the trie: [examples]."""
        return ndcg_at(np.array(in_shares(self._ranks, self.examples)), EVAL_AT)

    def ndcg(self) -> float:
        """Their mean."""
        return float(self.gains().mean())

    def _ranks(self, examples: Sequence[Example]) -> list[float]:
        found = beam_search(self.model.eval(), self.items.trie, [one.prompt for one in examples], EVAL_BEAMS)
        hits = found.items.cpu().numpy() == np.array([one.item for one in examples])[:, None]
        return list(np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf))

    def valid_id_rate(self) -> float:
        """The share of examples that are answered with an item without the trie."""
        return float(np.mean(in_shares(self._valid, self.examples)))

    def _valid(self, examples: Sequence[Example]) -> list[float]:
        rate = valid_id_rate(self.model.eval(), self.items.trie, [one.prompt for one in examples])
        valid = round(rate * len(examples))
        return [1.0] * valid + [0.0] * (len(examples) - valid)
