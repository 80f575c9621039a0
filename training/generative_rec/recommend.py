"""Stage: the best items of every user for each of some packaged models, as the table `recommendations`.

The artifacts are the models by version (or a packed baseline by its name), the table `histories` says who is asked for:
one row per user. `items` is the catalogue of the day: what is not in it is in no list, and an item that a model was
not trained with is in none of that model's. Users are parted
into shards by a hash of their id. A finished shard is a file that is whole or not there, under the name of what it was
made from: a run that was killed, or that is asked about one more version, decodes what is missing and no more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import DataError
from training.core.files import new_folder
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, read_table, resolve_config
from training.generative_rec.baselines.base import Ranking, Recommender
from training.generative_rec.baselines.packed import FACTS_FILE, unpack
from training.generative_rec.baselines.rows import fitted
from training.generative_rec.serve import Recommender as Generative

_HISTORIES = {"user_id": pa.string(), "item_ids": pa.list_(pa.string())}
_ITEMS = {"item_id": pa.string()}
_RANKED = pa.schema(
    {"user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "log_prob": pa.float64()},
)
_PART = "part-0.parquet"


@dataclass(frozen=True)
class Config:
    """`roles`: what each version is (champion, challenger, baseline).

    `top`: length of a list, shorter for a smaller catalogue. `shard_users`: about how many users a shard has, which is
    what a kill costs at most.
    """

    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    top: int = 20
    shard_users: int = 256


def main(spec: StageSpec) -> StageResult:
    """Decode the shards that are missing, and join all.

    Raises DataError for a user with two histories, and for a model that knows no item of the catalogue.
    """
    config = resolve_config(spec, Config)
    versions = sorted(spec.artifacts)
    shards = _shards(spec, config) if versions else []
    catalogue = _catalogue(spec) if versions else frozenset()
    users = sum(map(len, shards))
    with Progress(users * len(versions), "recommend", "list") as progress:
        files = {version: _decoded(spec, config, version, shards, catalogue, progress) for version in versions}
    rows = _join(files, config, spec.out_dir / "tables" / "recommendations")
    metrics = {"users": users, "rows": rows, "missing": users * len(versions) * config.top - rows}
    return StageResult(metrics, {"recommendations": (f"tables/recommendations/{_PART}",)})


def load(folder: Path) -> Recommender:
    """A packaged model, or a packed baseline fitted again."""
    if not (folder / FACTS_FILE).is_file():
        return Generative.load(folder)
    packed = unpack(folder)
    facts = packed.facts
    return fitted(facts.name, packed.catalogue, packed.samples, facts.sasrec, facts.rank_own, facts.seed)


def shard_of(user: str, shards: int) -> int:
    """The shard of a user: a range of the hashes of ids, the same for any order of the users."""
    return int.from_bytes(hashlib.sha256(user.encode()).digest()[:4], "big") * shards >> 32


def _shards(spec: StageSpec, config: Config) -> list[pa.Table]:
    """The rows of each shard; only one that is decoded is ever made into Python objects."""
    rows = read_table(spec, "histories", _HISTORIES)
    users = rows["user_id"].to_pylist()
    if len(set(users)) != len(users):
        raise DataError("a user has two histories", where="histories", do="write one row per user")
    count = math.ceil(len(users) / config.shard_users)
    found = defaultdict[int, list[int]](list)
    for place, user in enumerate(users):
        found[shard_of(user, count)].append(place)
    return [rows.take(pa.array(found[number], pa.int64())) for number in range(count)]


def _catalogue(spec: StageSpec) -> frozenset[str]:
    return frozenset(read_table(spec, "items", _ITEMS)["item_id"].to_pylist())


def _decoded(
    spec: StageSpec,
    config: Config,
    version: str,
    shards: Sequence[pa.Table],
    catalogue: frozenset[str],
    progress: Progress,
) -> list[Path]:
    """The files of the shards, those first that are there already."""
    place = spec.out_dir / "shards" / _key(spec, config, version)
    files = [place / f"{number:05d}" / _PART for number in range(len(shards))]
    missing = [(file, asked) for file, asked in zip(files, shards, strict=True) if not file.is_file()]
    progress.advance(sum(map(len, shards)) - sum(len(asked) for _, asked in missing), version=version)
    if not missing:
        return files
    model = load(spec.artifact(version))
    _refuse_unknown(model, version, catalogue)
    for file, asked in missing:
        with new_folder(file.parent) as scratch:
            lists = list(_lists(model, asked, config.top, catalogue))
            pq.write_table(pa.Table.from_pylist(lists, schema=_RANKED), scratch / _PART)
        progress.advance(len(asked), version=version)
    return files


def _refuse_unknown(model: Recommender, version: str, catalogue: frozenset[str]) -> None:
    if not catalogue & set(model.catalogue):
        raise DataError(
            f"version {version} knows no item of the catalogue",
            why=f"the catalogue of the day has {len(catalogue)} items, the model {len(model.catalogue)} others",
            do="look at the newest delivery of the catalogue, or train a model on it",
        )


def _lists(model: Recommender, shard: pa.Table, top: int, catalogue: frozenset[str]) -> Iterator[dict[str, object]]:
    if not len(shard):
        return
    asked = sorted((row["user_id"], row["item_ids"]) for row in shard.to_pylist())
    users, histories = zip(*asked, strict=True)
    found = model.recommend(histories, top, users=users, within=catalogue)
    for user, ranking in zip(users, found, strict=True):
        for rank, (item, log_prob) in enumerate(_as_log_probs(model, ranking), start=1):
            yield {"user_id": user, "rank": rank, "item_id": item, "log_prob": log_prob}


def _as_log_probs(model: Recommender, ranking: Ranking) -> Ranking:
    """A model's scores are log-probabilities; those of a baseline become the log-softmax over its list."""
    if isinstance(model, Generative) or not ranking:
        return ranking
    scores = np.array([score for _, score in ranking], dtype=np.float64)
    shares = scores - np.logaddexp.reduce(scores)
    return [(item, min(0.0, float(share))) for (item, _), share in zip(ranking, shares, strict=True)]


def _key(spec: StageSpec, config: Config, version: str) -> str:
    """What a shard is made from: the same users and catalogue are not decoded again by the same model, whatever its
    role."""
    files = [spec.tables[name].files for name in ("histories", "items")]
    made_from = [files, spec.artifacts[version], config.top, config.shard_users]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]


def _join(files: Mapping[str, Sequence[Path]], config: Config, folder: Path) -> int:
    """All shards as one file, with their version and its role; returns the number of rows."""
    schema = _RANKED.append(pa.field("model_version", pa.string())).append(pa.field("role", pa.string()))
    rows = 0
    with new_folder(folder) as scratch, pq.ParquetWriter(scratch / _PART, schema) as writer:
        for version, file in ((version, file) for version, shards in files.items() for file in shards):
            table = pq.read_table(file)
            names = ([version] * len(table), [config.roles[version]] * len(table))
            columns = [*table.columns, *(pa.array(values, pa.string()) for values in names)]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(table)
    return rows
