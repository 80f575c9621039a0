"""Stage: the best items of every user for each version of a model, as the table `recommendations`.

`active_histories` says who is asked for: one row per user. `items` is the catalogue of the day: what is not in it, or
not in stock, is in no list, and an item that a model was not trained with is in none of that model's. What the feature
store says of the users, as of the end of the day, stands in their rows, where a model takes any of it. Where the shop
does not recommend what a user has taken before (the model says so, as it was measured), no list holds it. A run that
was killed, or that is asked about one more version, decodes the shards of users that are missing and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.batch_inference import Answer, answered, in_shards
from training.core.errors import DataError, LeftOut
from training.core.files import new_folder
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, read_query, read_table, resolve_config
from training.generative_rec.serve import Recommender as Generative
from training.generative_rec.serve import load
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.next_item.store_features import still_told, told
from training.ranker.serve import RANKER, Explained, RankerRow

HISTORIES = "active_histories"
BASELINE = "baseline"
_HISTORY_COLUMNS = {"user_id": pa.string(), "item_ids": pa.list_(pa.string())}
_ITEM_COLUMNS = {"item_id": pa.string(), "in_stock": pa.bool_()}
_RANKED = pa.schema(
    {
        "user_id": pa.string(),
        "rank": pa.int64(),
        "item_id": pa.string(),
        "log_prob": pa.float64(),
        "reasons": pa.list_(pa.string()),
        "reason_scores": pa.list_(pa.float64()),
    }
)
_LEAST = 1e-9  # of a probability: that of an item which only fills up a list is 0
_PART = "part-0.parquet"


@dataclass(frozen=True)
class Config:
    """`top`: length of a list, shorter for a smaller catalogue. `shard_users`: about how many users a shard has, which
    is what a kill costs at most."""

    top: int = 20
    shard_users: int = 256


def main(spec: StageSpec) -> StageResult:
    """Decode the shards that are missing, and join all.

    Raises LeftOut where no version stands and nothing stands in for one, and where nobody was active, DataError for a
    user with two histories, and for a model that knows no item of the catalogue.
    """
    config = resolve_config(spec, Config)
    versions = _makers(spec.models)
    if not versions:
        raise LeftOut(
            "there is nothing to make lists with: no version was promoted, and no baseline was measured",
            do="train a model first",
        )
    asked = read_query(spec, HISTORIES, {**_HISTORY_COLUMNS, **told(spec, HISTORIES)})
    catalogue = _in_stock(read_table(spec, "items", _ITEM_COLUMNS, later=["in_stock"]))
    shards = in_shards(asked, "user_id", config.shard_users)
    inputs = [spec.tables[name].files for name in (HISTORIES, "items")]
    with Progress(len(asked) * len(versions), "recommend", "list") as progress:
        files = {
            one: answered(
                spec.out_dir / "shards",
                [inputs, one.folder, config.top, config.shard_users],
                shards,
                lambda one=one: _lists_of(spec, one, config.top, catalogue),  # type: ignore[misc]
                progress,
            )
            for one in versions
        }
    rows = _join(files, catalogue, spec.out_dir / "tables" / "recommendations")
    metrics = {"users": len(asked), "rows": rows, "missing": len(asked) * len(versions) * config.top - rows}
    return StageResult(metrics, {"recommendations": (f"tables/recommendations/{_PART}",)})


def _makers(models: Mapping[str, Sequence[ModelVersion]]) -> list[ModelVersion]:
    """Champion and challenger. Where there is no champion the shop's ranker alone stands in for it, and where none has
    passed its gate, the best baseline of an evaluation."""
    own = [one for name, found in models.items() if name != RANKER for one in found]
    if any(one.role == "champion" for one in own):
        return own
    rankers = {one.role: one for one in models.get(RANKER, ())}
    if trained := rankers.get("champion") or rankers.get("challenger"):
        promised = [one for one in own if one.role != BASELINE]
        return [replace(trained, version=RANKER, role=BASELINE), *promised]
    return own or list(rankers.values())


def _in_stock(items: pa.Table) -> frozenset[str]:
    """What can be bought; an item of which the catalogue does not say it can."""
    pairs = zip(items["item_id"].to_pylist(), items["in_stock"].to_pylist(), strict=True)
    found = frozenset(item for item, there in pairs if there is not False)
    if not found:
        raise DataError("nothing is in stock", why="`in_stock` is false for all items", do="correct the catalogue")
    return found


def _lists_of(spec: StageSpec, version: ModelVersion, top: int, catalogue: frozenset[str]) -> Answer:
    """What makes the lists of a version; DataError where it knows no item of the catalogue."""
    model = load(Path(version.folder))
    if not catalogue & set(model.catalogue):
        raise DataError(
            f"version {version.version} knows no item of the catalogue",
            why=f"the catalogue of the day has {len(catalogue)} items, the model {len(model.catalogue)} others",
            do="look at the newest delivery of the catalogue, or train a model on it",
        )
    still_told(spec, HISTORIES, model.store_features)
    return lambda shard: pa.Table.from_pylist(list(_lists(model, shard, top, catalogue)), schema=_RANKED)


def _lists(model: Recommender, shard: pa.Table, top: int, catalogue: frozenset[str]) -> Iterator[dict[str, object]]:
    if not len(shard):
        return
    asked = [
        ListRequest.after(row["item_ids"], row["user_id"], _known(model, row), rank_own=model.rank_own)
        for row in sorted(shard.to_pylist(), key=lambda row: str(row["user_id"]))
    ]
    for one, line in zip(asked, _explained(model, asked, top, catalogue), strict=True):
        for rank, (item, log_prob, reasons) in enumerate(line, start=1):
            added = {"reasons": [reason.name for reason in reasons], "reason_scores": [one.added for one in reasons]}
            yield {"user_id": one.user, "rank": rank, "item_id": item, "log_prob": log_prob, **added}


def _known(model: Recommender, row: Mapping[str, Any]) -> dict[str, float]:
    """What the row says of the features that the model takes."""
    return {name: float(row[name]) for name in model.store_features if row.get(name) is not None}


def _explained(
    model: Recommender, asked: Sequence[ListRequest], top: int, catalogue: frozenset[str]
) -> list[list[Explained]]:
    """Lists with log-probabilities: the logarithm of a ranker's probability, a generator's own, and of the scores of a
    signal the log-softmax over its list. Only a ranker has reasons."""
    if isinstance(model, RankerRow):
        lists = model.explained(asked, top, catalogue)
        return [[one._replace(chance=float(np.log(max(one.chance, _LEAST)))) for one in line] for line in lists]
    own = isinstance(model, Generative)
    rankings = model.answer(asked, top, catalogue)
    return [[Explained(*one, ()) for one in (line if own else _log_softmax(line))] for line in rankings]


def _log_softmax(ranking: Ranking) -> Ranking:
    scores = np.array([score for _, score in ranking], dtype=np.float64)
    shares = scores - np.logaddexp.reduce(scores)
    return [(item, min(0.0, float(share))) for (item, _), share in zip(ranking, shares, strict=True)]


def _join(files: Mapping[ModelVersion, Sequence[Path]], catalogue: frozenset[str], folder: Path) -> int:
    """All shards as one file, with their version and its role; returns the number of rows.

    Raises DataError for an item that the catalogue does not have, whatever made the lists: nothing is published then.
    """
    schema = _RANKED.append(pa.field("model_version", pa.string())).append(pa.field("role", pa.string()))
    rows = 0
    with new_folder(folder) as scratch, pq.ParquetWriter(scratch / _PART, schema) as writer:
        for one, file in ((one, file) for one, shards in files.items() for file in shards):
            table = pq.read_table(file)
            if gone := sorted(set(table["item_id"].to_pylist()) - catalogue):
                raise DataError(
                    f"{len(gone)} items of the lists are not in the catalogue of the day",
                    where=", ".join(gone[:5]),
                    do="the lists of before stay; this is a bug of the stage recommend: report it",
                )
            names = ([one.version] * len(table), [one.role] * len(table))
            columns = [*table.columns, *(pa.array(values, pa.string()) for values in names)]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(table)
    return rows
