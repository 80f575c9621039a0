"""A ranker for a toy shop, trained in a second; and one that says what it is told to say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.ranker_view import RankerView
from training.next_item.recommender import ListRequest, Ranking
from training.ranker.serve import RankerRow
from training.ranker.signals.base import Floats
from training.ranker.stages import ranker

CONFIG: dict[str, Any] = {
    "texts": ["tf_idf"],
    "share": 0.4,
    "signals": {"sasrec": {"width": 8, "heads": 1, "length": 10, "epochs": 1}},
    "learner": {"rounds": 20, "patience": 10, "min_data_in_leaf": 5, "num_leaves": [7]},
}


def with_ranker(spec: StageSpec, folder: Path, items: Sequence[str], **config: Any) -> StageSpec:
    """The spec with a ranker that was trained in `folder`, for a catalogue of these items.

    It has learnt from the spec's own samples, but that in four of ten something else was taken: else it would be sure.
    """
    folder.mkdir(exist_ok=True)
    taken = pq.read_table(spec.tables["next_item_training_set"].files[0])
    rng, place = np.random.default_rng(0), taken.schema.get_field_index("item_id")
    other = [str(rng.choice(items)) if rng.random() < 0.4 else item for item in taken["item_id"].to_pylist()]
    pq.write_table(taken.set_column(place, "item_id", pa.array(other)), folder / "samples.parquet")
    nothing = dict.fromkeys(("brand", "description", "features", "category"), pa.nulls(len(items), pa.string()))
    known = {"item_id": list(items), "source": ["shop"] * len(items), "title": [f"pen {item}" for item in items]}
    prices = pa.array([1.0] * len(items))
    pq.write_table(pa.table({**known, **nothing, "price": prices}), folder / "items.parquet")
    files = {"items": "items.parquet", "next_item_training_set": "samples.parquet"}
    tables = {name: TableRef((str(folder / file),)) for name, file in files.items()}
    trained = StageSpec("ranker", "ranker", str(folder / "ranker"), 3, tables, config={**CONFIG, **config})
    run_stage(trained, ranker.main)
    version = ModelVersion("1", "challenger", str(trained.out_dir / "model"))
    return replace(spec, models={"ranker": (version,)})


@dataclass(frozen=True)
class Told:
    """Stands for a `RankerRow`: the probability of an item after a history is what `says` gives."""

    says: Callable[[Sequence[str], str], float]
    catalogue: Sequence[str] = ()
    store_features: Sequence[str] = ()

    @property
    def bundle(self) -> Any:
        """What a view asks of it."""
        return SimpleNamespace(rank_own=True)

    def chances(self, asked: Sequence[ListRequest], items: Sequence[Sequence[str]]) -> list[Floats]:
        """See `RankerRow.chances`."""
        return [
            np.array([self.says(one.history, item) for item in own], dtype=np.float32)
            for one, own in zip(asked, items, strict=True)
        ]

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `Recommender.answer`."""
        known = [item for item in self.catalogue if within is None or item in within]
        lists = [[(item, self.says(one.history, item)) for item in known if item not in one.left_out] for one in asked]
        return [sorted(line, key=lambda pair: -pair[1])[:k] for line in lists]


def view(says: Callable[[Sequence[str], str], float], catalogue: Sequence[str] = ()) -> RankerView:
    """A view of a ranker that says so."""
    return RankerView(cast(RankerRow, Told(says, catalogue)))
