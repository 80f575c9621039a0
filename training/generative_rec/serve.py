"""A trained generative recommender in a folder of its own: what evaluation measures and what serving loads.

The folder is flat: weights, model config, tokenizer and vocabulary, `codes.parquet`, and `serving.json`. It describes
itself: `signature.json` has the columns that go in and come out and the parameters, in MLflow's JSON for them, and
`example.parquet` a question that it can answer. Who serves it needs `load(folder).predict(frame, params)` and no more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel

from training.core.backbone import load_backbone
from training.core.decoding import SubCatalogues, beam_search
from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.core.precision import products
from training.core.trie import NO_ITEM
from training.generative_rec.fusion import GENERATOR, fused_row
from training.generative_rec.item_codes import CODES_FILE, USER_CODES_FILE, ItemCodes, read_codes
from training.next_item import recommender
from training.next_item.recommender import ListRequest, Ranking
from training.ranker.bundle import Bundle
from training.ranker.serve import load as load_ranker

if TYPE_CHECKING:
    import pandas as pd

_SERVING_FILE = "serving.json"
_IDS = {"type": "array", "items": {"type": "string"}}
_SIGNATURE = {
    "inputs": [
        {"name": "history", "required": True, **_IDS},
        {"name": "user_id", "type": "string", "required": False},
    ],
    "outputs": [
        {"name": "items", "required": True, **_IDS},
        {"name": "scores", "required": True, "type": "array", "items": {"type": "double"}},
    ],
    "params": [{"name": "k", "type": "long", "default": 10, "shape": None}],
}


@dataclass(frozen=True)
class Serving:
    """`history`: the last items of a user that the model reads. `beams`: beam width; lists are at most that long.

    `rank_own`: as it was measured, so it serves: may a user's own items stand in a list.
    """

    history: int = 20
    beams: int = 20
    rank_own: bool = True


def package(trained: Path, codes: Path, serving: Serving, folder: Path) -> None:
    """Make `folder` from a stage's `model/` folder and the semantic ids it was trained with; whole or not at all."""
    with new_folder(folder) as scratch:
        shutil.copytree(trained, scratch, dirs_exist_ok=True)
        for name in (CODES_FILE, USER_CODES_FILE):
            if (codes / name).is_file():
                shutil.copyfile(codes / name, scratch / name)
        write_json(scratch / _SERVING_FILE, asdict(serving))
        write_json(scratch / "signature.json", _SIGNATURE)
        known = list(read_codes(codes))[:3]
        pq.write_table(pa.table({"history": [known, known[:1]]}), scratch / "example.parquet")


def load(folder: str | Path) -> recommender.Recommender:
    """What answers for a folder of this system: the fused list, the generator alone, or what stands in for either.

    DataError for a folder that is none of them, or not whole.
    """
    path = Path(folder)
    if (path / GENERATOR).is_dir():
        generator = Recommender.load(path / GENERATOR)
        return fused_row(path, generator, generator.serving.beams)
    return load_ranker(path) if Bundle.there_is_one(path) else Recommender.load(path)


class Recommender(recommender.Recommender):
    """Constrained beam search over the catalogue; every recommendation is an item (see `core.decoding`)."""

    def __init__(self, model: PreTrainedModel, items: ItemCodes, serving: Serving) -> None:
        self._model, self._items, self.serving = model.eval(), items, serving
        self.catalogue, self.rank_own = items.item_ids, serving.rank_own

    @classmethod
    def load(cls, folder: str | Path) -> Recommender:
        """Read what `package` wrote; DataError for a folder that is not whole or does not fit together."""
        path = Path(folder) / _SERVING_FILE
        if not path.is_file():
            raise DataError("the folder is no packaged recommender", where=str(path), do="use the `model/` of evaluate")
        model, vocabulary = load_backbone(path.parent, dtype=products() or torch.float32)
        return cls(model, ItemCodes.load(path.parent, vocabulary), Serving(**json.loads(path.read_text())))

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `next_item.recommender`; scores are log-probabilities. What is left out widens the beam.

        No beam goes to an item that is not `within`. DataError where none of the model's items is.
        """
        items = self._items
        prompts = []
        for one in asked:
            known = [item for item in one.history if item in items.row]
            prompts.append(items.prompt(known, self.serving.history, one.user))
        beams = max(k, self.serving.beams) + max((len(one.left_out) for one in asked), default=0)
        part = None
        if within is not None:
            inside = [row for row, item in enumerate(self.catalogue) if item in within]
            part = SubCatalogues.create(items.trie, [inside], [0] * len(asked))
        found = beam_search(self._model, items.trie, prompts, beams, within=part)
        rankings = list[Ranking]()
        for one, rows, scores in zip(asked, found.items.tolist(), found.log_probs.tolist(), strict=True):
            line = [(self.catalogue[row], score) for row, score in zip(rows, scores, strict=True) if row != NO_ITEM]
            rankings.append([(item, score) for item, score in line if item not in one.left_out][:k])
        return rankings

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """The first `k` items and their log-probabilities for each row of `frame`.

        In: `history` (item ids, oldest first), and `user_id` where users are known. Out: `items`, `scores`.
        """
        import pandas as pd  # a stage that trains needs none of it

        histories = [[str(item) for item in history] for history in frame["history"]]
        users = [str(user) for user in frame["user_id"]] if "user_id" in frame else None
        lists = self.recommend(histories, int(params.get("k", 10)), users=users, rank_own=self.rank_own)
        items = [[item for item, _ in ranking] for ranking in lists]
        return pd.DataFrame({"items": items, "scores": [[score for _, score in ranking] for ranking in lists]})
