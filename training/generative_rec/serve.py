"""A trained generative recommender in a folder of its own: what evaluation measures and what serving loads.

The folder is flat: weights, model config, tokenizer and vocabulary, `codes.parquet`, and `serving.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from training.core.backbone import load_backbone
from training.core.decoding import beam_search
from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.core.precision import products
from training.core.trie import NO_ITEM
from training.generative_rec.baselines import base
from training.generative_rec.baselines.base import Query, Ranking
from training.generative_rec.item_codes import CODES_FILE, USER_CODES_FILE, ItemCodes

_SERVING_FILE = "serving.json"


@dataclass(frozen=True)
class Serving:
    """`history`: the last items of a user that the model reads. `beams`: beam width; lists are at most that long."""

    history: int = 20
    beams: int = 20


def package(trained: Path, codes: Path, serving: Serving, folder: Path) -> None:
    """Make `folder` from a stage's `model/` folder and the semantic ids it was trained with; whole or not at all."""
    with new_folder(folder) as scratch:
        shutil.copytree(trained, scratch, dirs_exist_ok=True)
        for name in (CODES_FILE, USER_CODES_FILE):
            if (codes / name).is_file():
                shutil.copyfile(codes / name, scratch / name)
        write_json(scratch / _SERVING_FILE, asdict(serving))


class Recommender(base.Recommender):
    """Constrained beam search over the catalogue; every recommendation is an item (see `core.decoding`)."""

    def __init__(self, model: PreTrainedModel, items: ItemCodes, serving: Serving) -> None:
        self._model, self._items, self._serving = model.eval(), items, serving

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """Read what `package` wrote; DataError for a folder that is not whole or does not fit together."""
        path = Path(folder) / _SERVING_FILE
        if not path.is_file():
            raise DataError("the folder is no packaged recommender", where=str(path), do="use the `model/` of evaluate")
        model, vocabulary = load_backbone(path.parent, dtype=products() or torch.float32)
        return cls(model, ItemCodes.load(path.parent, vocabulary), Serving(**json.loads(path.read_text())))

    @property
    def catalogue(self) -> Sequence[str]:
        """The items that can be recommended."""
        return self._items.item_ids

    def answer(self, asked: Sequence[Query], k: int) -> list[Ranking]:
        """See `base.Recommender.answer`; scores are log-probabilities. What is left out widens the beam."""
        prompts = [self._items.prompt(self._known(one), self._serving.history, one.user) for one in asked]
        spare = max((len(one.left_out) for one in asked), default=0)
        found = beam_search(self._model, self._items.trie, prompts, max(k, self._serving.beams) + spare)
        lines = zip(asked, found.items.tolist(), found.log_probs.tolist(), strict=True)
        return [self._ranking(one, rows, scores)[:k] for one, rows, scores in lines]

    def _known(self, one: Query) -> list[str]:
        return [item for item in one.history if item in self._items.row]

    def _ranking(self, one: Query, rows: Sequence[int], scores: Sequence[float]) -> Ranking:
        ids = ((self.catalogue[row], score) for row, score in zip(rows, scores, strict=True) if row != NO_ITEM)
        return [(item, score) for item, score in ids if item not in one.left_out]
