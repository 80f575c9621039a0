"""A baseline in a folder of its own: what makes the nightly lists where there is no champion.

Nothing that it has learnt is kept, but all that it learns from: the training and validation part of the samples, the
catalogue, its settings and seed. So what is loaded is what was measured, for every baseline that there is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.config import parse_config
from training.core.files import new_folder, write_json
from training.core.stage import StageSpec, TableRef, read_batches
from training.core.tables import read_parquet
from training.generative_rec.baselines.rows import BaselineName
from training.generative_rec.baselines.sasrec import SASRecConfig
from training.next_item.samples import COLUMNS, TABLE, NextItem, read_samples

FACTS_FILE = "baseline.json"
_SAMPLES_FILE, _ITEMS_FILE = "samples.parquet", "items.parquet"


@dataclass(frozen=True)
class Facts:
    """What makes the same baseline of the same data again: `name` is its row of the comparison."""

    name: BaselineName
    seed: int
    sasrec: SASRecConfig
    rank_own: bool = True


@dataclass(frozen=True)
class Packed:
    """What a packed baseline is fitted on."""

    facts: Facts
    catalogue: Sequence[str]
    samples: Sequence[NextItem]


def pack(spec: StageSpec, facts: Facts, catalogue: Sequence[str], folder: Path) -> None:
    """Write what `unpack` reads, from the spec's samples; whole or not at all."""
    with new_folder(folder) as scratch:
        with pq.ParquetWriter(scratch / _SAMPLES_FILE, pa.schema(COLUMNS)) as file:
            for batch in read_batches(spec, TABLE, COLUMNS):
                file.write_table(batch.filter(pc.not_equal(batch["split_time"], "test")))
        pq.write_table(pa.table({"item_id": pa.array(catalogue, pa.string())}), scratch / _ITEMS_FILE)
        write_json(scratch / FACTS_FILE, asdict(facts))


def unpack(folder: Path) -> Packed:
    """What `pack` wrote."""
    facts = parse_config(Facts, json.loads((folder / FACTS_FILE).read_text()), str(folder / FACTS_FILE))
    items = read_parquet("items", [folder / _ITEMS_FILE], {"item_id": pa.string()})["item_id"].to_pylist()
    tables = {TABLE: TableRef((str(folder / _SAMPLES_FILE),))}
    samples = read_samples(StageSpec("generative_rec", "baseline", str(folder), facts.seed, tables), "time")
    return Packed(facts, items, samples)
