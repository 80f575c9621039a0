"""Offline inference over a table in shards: what was answered before a kill, or from the same input, stays.

Rows are parted by a hash of their key, so a shard is the same for any order of the rows. A finished shard is a file
that is whole or not there, in a folder that is named by what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import DataError
from training.core.files import new_folder
from training.core.progress import Progress

Answer = Callable[[pa.Table], pa.Table]
"""Gives the rows that a shard of the input is answered with."""

_PART = "part-0.parquet"


def shard_of(key: str, shards: int) -> int:
    """The shard of a key: a range of the hashes of keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") * shards >> 32


def in_shards(rows: pa.Table, key: str, size: int) -> list[pa.Table]:
    """The rows in shards of about `size`, by their text column `key`; DataError for a key that is there twice."""
    keys = rows[key].to_pylist()
    if len(set(keys)) != len(keys):
        raise DataError(f"a {key} is there twice", where=key, do="write one row for each")
    count = math.ceil(len(keys) / size)
    found = defaultdict[int, list[int]](list)
    for place, value in enumerate(keys):
        found[shard_of(value, count)].append(place)
    return [rows.take(pa.array(found[number], pa.int64())) for number in range(count)]


def answered(
    folder: Path, made_from: object, shards: Sequence[pa.Table], load: Callable[[], Answer], progress: Progress
) -> list[Path]:
    """One file of answers for each shard below `folder`, those first that are there already.

    `made_from` (what JSON can hold) names all that answers depend on beside the code. `load` is called if at least one
    shard is missing; `progress` counts input rows.
    """
    place = folder / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    files = [place / f"{number:05d}" / _PART for number in range(len(shards))]
    missing = [(file, rows) for file, rows in zip(files, shards, strict=True) if not file.is_file()]
    progress.advance(sum(map(len, shards)) - sum(len(rows) for _, rows in missing))
    answer = load() if missing else None
    for file, rows in missing:
        assert answer is not None
        with new_folder(file.parent) as scratch:
            pq.write_table(answer(rows), scratch / _PART)
        progress.advance(len(rows))
    return files
