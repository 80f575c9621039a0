"""Stage: a short code for every item of the catalogue, from what its text says, or as somebody published it.

Writes `codes.parquet` (item_id, codes: variable length, one trie leaf per item; also the table `item_codes`) and
`quantizer.safetensors` (empty for published codes: nobody knows their vectors). The collision rate is counted before
the leftovers get their further code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from training.core.catalogue import item_texts, read_catalogue, refuse, refuse_broken
from training.core.embeddings import embed_texts, kept_vectors
from training.core.stage import MetricsLog, StageResult, StageSpec, read_table, resolve_config
from training.generative_rec.code_sizes import fitted
from training.generative_rec.quantizers import QUANTIZERS, codebook_report, unique_leaves
from training.next_item.samples import TABLE

CODES_FILE = "codes.parquet"
CODES_SCHEMA = {"item_id": pa.string(), "codes": pa.list_(pa.int32())}


@dataclass(frozen=True)
class Config:
    """Settings of the stage.

    `sources`: the catalogues to recommend from; empty: those that the training set's items are from. `levels`, `codes`:
    the most that the items are given (`code_sizes`). `encoder`: a sentence-transformers folder, null is the embedded
    one; it reads `max_tokens` of a text. `fallback_text`: what stands for an item without any text, with `{item_id}` in
    it; null makes such an item an error. `published`: the items' column that holds codes made elsewhere (lists of
    `levels` integers below `codes`), taken as they are.
    """

    sources: tuple[str, ...] = ()
    quantizer: str = "rq_kmeans"
    levels: int = 3
    codes: int = 256
    width: int = 32
    encoder: str | None = None
    max_tokens: int = 128
    fallback_text: str | None = None
    published: str | None = None


def main(spec: StageSpec) -> StageResult:
    """Embed the text of every item and quantize the vectors, or read the published codes; tell the leftovers apart."""
    config = resolve_config(spec, Config)
    items = read_catalogue(spec, config.sources, TABLE)
    ids = [item["item_id"] for item in items]
    made = _quantized(spec, config, items) if config.published is None else _published(spec, config, ids)
    codes, size, state = made
    leaves = unique_leaves(codes, ids)
    report = codebook_report(codes, size)
    MetricsLog(spec.out_dir / "metrics.jsonl").append(0, **report)
    save_file(state, spec.out_dir / "quantizer.safetensors")
    pq.write_table(pa.table([ids, leaves], schema=pa.schema(list(CODES_SCHEMA.items()))), spec.out_dir / CODES_FILE)
    longest = max(leaf[-1] + 1 for leaf in leaves if len(leaf) > codes.shape[1]) if report["collision_rate"] else 0
    metrics = {"items": float(len(ids)), "largest_collision": float(longest), **report}
    return StageResult(metrics=metrics, tables={"item_codes": (CODES_FILE,)})


def _quantized(
    spec: StageSpec, config: Config, items: Sequence[dict[str, str]]
) -> tuple[NDArray[np.int32], int, dict[str, torch.Tensor]]:
    """Codes [items, levels] of the items' texts, how many codes a level has, and the quantizer's tensors."""
    encoder = Path(config.encoder) if config.encoder else None
    texts = item_texts(items, config.fallback_text)
    vectors = embed_texts(texts, kept_vectors(), encoder=encoder, max_tokens=config.max_tokens)
    refuse_broken([item["item_id"] for item in items], vectors)
    points = torch.from_numpy(vectors)
    quantizer = QUANTIZERS[config.quantizer](*fitted(config.levels, config.codes, len(points)), config.width, spec.seed)
    quantizer.fit(points)
    return quantizer.encode(points), quantizer.codes, quantizer.state()


def _published(
    spec: StageSpec, config: Config, ids: Sequence[str]
) -> tuple[NDArray[np.int32], int, dict[str, torch.Tensor]]:
    """The same from the items' column, without tensors; DataError for items whose codes do not fit the config."""
    column = str(config.published)
    rows = read_table(spec, "items", {"item_id": pa.string(), column: pa.list_(pa.int32())}).to_pylist()
    found = {row["item_id"]: row[column] or [] for row in rows}
    broken = [len(found[i]) != config.levels or not all(0 <= c < config.codes for c in found[i]) for i in ids]
    refuse(ids, broken, f"have no {config.levels} codes below {config.codes} in {column}", "correct them or the config")
    return np.array([found[item] for item in ids], dtype=np.int32), config.codes, {}
