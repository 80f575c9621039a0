"""What Feast reads: the files of one lake snapshot, never a table's folder, where replaced files stay for a while.

One factory per offline store. DuckDB reads a folder of links to the pinned files; Spark reads a temporary view over the
same files, which needs no table format in Spark and works on any file system that Spark reaches.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.definitions import EVENT_TIME
from feature_store.store import feast_home, offline_store
from infra.contracts import arrow_schema, load_contract, spark_ddl
from infra.errors import DataError
from infra.lake import DataFile, Lake
from infra.ledger import Ledger
from infra.profile import Profile


@dataclass(frozen=True)
class Pinned:
    """The data files of some partitions of a table at one snapshot (None: the table has no data yet)."""

    table: str
    snapshot: int | None
    files: tuple[DataFile, ...]

    @property
    def paths(self) -> list[str]:
        """Where the files are, in order."""
        return sorted(file.path for file in self.files)

    @property
    def digest(self) -> str:
        """Names this set of files: the same files give the same digest."""
        return hashlib.sha256("\n".join((self.table, *self.paths)).encode()).hexdigest()[:16]


def pin(lake: Lake, table: str, first: date | None = None, last: date | None = None) -> Pinned:
    """The live files of the table's partitions `[first, last]` as of its newest snapshot."""
    snapshot = lake.snapshot(table)
    found = [] if snapshot is None else lake.files(table, first=first, last=last, snapshot=snapshot)
    return Pinned(table, snapshot, tuple(found))


def require_committed(ledger: Ledger, table: str, first: date, last: date) -> None:
    """Refuse a range of which not every day is there.

    Raises:
        DataError: naming the first and the number of the days that are missing.
    """
    missing = ledger.missing(table, first, last)
    if missing:
        raise DataError(
            f"{table} is not committed for {len(missing)} of the days from {first} to {last}.",
            where=f"{table} {missing[0]}",
            do=f"Run `python -m spark_jobs {table} --from {missing[0]} --partition {missing[-1]}` first.",
        )


def sources_of(profile: Profile, pins: Sequence[Pinned]) -> dict[str, Any]:
    """The profile's Feast data source over the files of each pinned table, by table name."""
    make = _FACTORIES[profile.feast.offline_store]
    return {pinned.table: make(profile, pinned) for pinned in pins}


def link_root(profile: Profile) -> Path:
    """Where the folders of links are: one per table and set of files."""
    return feast_home(profile) / "links"


def link_folder(pinned: Pinned, folder: Path) -> Path:
    """A folder whose `*.parquet` are the pinned files, all with the contract's columns.

    Files are linked. One that was written before a column was appended to the contract is copied with that column null,
    since DuckDB takes the columns of a glob from its first file. Without any file there is one with no rows.
    """
    target = folder / pinned.table / pinned.digest
    if target.is_dir():
        return target
    schema = arrow_schema(load_contract(pinned.table))
    unfinished = target.with_name(f".{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for number, path in enumerate(pinned.paths):
        _link(Path(path), unfinished / f"{number:06d}.parquet", schema)
    if not pinned.files:
        pq.write_table(schema.empty_table(), unfinished / "empty.parquet")
    unfinished.rename(target)
    return target


def drop_other_links(profile: Profile, pins: Sequence[Pinned]) -> None:
    """Remove the link folders of other pins, whose files may expire."""
    keep = {link_root(profile) / pinned.table / pinned.digest for pinned in pins}
    for folder in link_root(profile).glob("*/*"):
        if folder not in keep:
            shutil.rmtree(folder)


def _link(source: Path, link: Path, schema: pa.Schema) -> None:
    present = pq.read_schema(source).names
    if set(schema.names) <= set(present):
        link.symlink_to(source)
        return
    table = pq.read_table(source)
    columns = [
        table[field.name].cast(field.type) if field.name in present else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    pq.write_table(pa.table(columns, names=schema.names), link)


def _duckdb_source(profile: Profile, pinned: Pinned) -> Any:
    import feast
    from feast.data_format import ParquetFormat

    return feast.FileSource(
        name=pinned.table,
        path=str(link_folder(pinned, link_root(profile)) / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIME,
    )


def _spark_source(profile: Profile, pinned: Pinned) -> Any:
    from feast.infra.offline_stores.contrib.spark_offline_store import spark as store
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    # The session that Feast itself would take: a temporary view is seen in its own session only.
    config = store.SparkOfflineStoreConfig(**offline_store(profile))
    spark = store.get_spark_session_or_start_new_with_repoconfig(config)
    view = f"feast_{pinned.table}_{pinned.digest}"
    ddl = spark_ddl(load_contract(pinned.table))
    frame = spark.read.schema(ddl).parquet(*pinned.paths) if pinned.files else spark.createDataFrame([], ddl)
    frame.createOrReplaceTempView(view)
    return SparkSource(name=pinned.table, table=view, timestamp_field=EVENT_TIME)


_FACTORIES: dict[str, Callable[[Profile, Pinned], Any]] = {"duckdb": _duckdb_source, "spark": _spark_source}
