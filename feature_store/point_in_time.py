"""The point-in-time join: samples in, the same samples with the features that were known at their `as_of` out.

A sample is a row with `user_id`, `item_id` (whichever the service's entities need) and `as_of`. Feast answers in an
order of its own, and Spark's answer has no time zone: so rows are joined back on keys and cast to the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store.definitions import AS_OF_UNIX, feast_objects, service_views
from feature_store.sources import Pinned, sources_of
from feature_store.store import apply, feast_home, opened_store, scratch_profile
from infra.contracts import Contract, arrow_schema
from infra.errors import DataError
from infra.profile import Profile

EVENT_TIMESTAMP = "event_timestamp"  # the name that Feast looks for in the rows it is asked about
AS_OF = "as_of"
_SAMPLES_AT_ONCE = 20_000


def read_rows(files: Sequence[str], contract: Contract) -> pa.Table:
    """The rows of the files with the contract's columns; a column appended since is null, no file is an empty table."""
    return scan_rows(files, contract).to_table()


def scan_rows(files: Sequence[str], contract: Contract) -> ds.Dataset:
    """The same rows unread: whoever asks for some columns of some rows reads no others."""
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(contract)])
    return ds.dataset(list(files), schema=schema) if files else ds.dataset(schema.empty_table())


def entity_keys(service: str) -> tuple[str, ...]:
    """The id columns that a service's features are looked up by."""
    return tuple(dict.fromkeys(view.entity.key for view in service_views(service)))


def join_features(profile: Profile, service: str, pins: Sequence[Pinned], samples: pa.Table) -> pa.Table:
    """One row per different (ids, as_of) of `samples`, with every feature of the service as `<view>__<feature>`.

    `pins` are the files of the tables behind the service. The registry is made for them and thrown away. Feast is asked
    about some samples at a time: it meets each with every row of its ids within the ttl before it takes the newest.
    """
    keys = [*entity_keys(service), AS_OF]
    asked = samples.select(keys).group_by(keys).aggregate([])
    asked = asked.rename_columns([EVENT_TIMESTAMP if name == AS_OF else name for name in keys])
    root = feast_home(profile)
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="join-", dir=root) as folder:
        alone = scratch_profile(profile, folder)
        with opened_store(alone) as store:
            apply(store, feast_objects(sources_of(alone, pins)))
            answers = []
            for start in range(0, asked.num_rows, _SAMPLES_AT_ONCE):
                entities = asked.slice(start, _SAMPLES_AT_ONCE).to_pandas()
                entities[AS_OF_UNIX] = entities[EVENT_TIMESTAMP].astype("datetime64[s, UTC]").astype("int64")
                feast_service = store.get_feature_service(service)
                job = store.get_historical_features(entities, feast_service, full_feature_names=True)
                answers.append(job.to_arrow().drop_columns([AS_OF_UNIX]))
    # A column without any value in some answer has another type there.
    return pa.concat_tables(answers, promote_options="permissive")


def attach(samples: pa.Table, features: pa.Table, contract: Contract, keys: Sequence[str]) -> pa.Table:
    """`samples` with `features` joined on `keys` and `as_of`, in the contract's columns, by partition and key.

    Raises:
        DataError: the join lost or multiplied rows.
    """
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(contract)])
    return joined(samples, features, schema, keys, (contract.partition, *contract.key), contract.table)


def joined(
    samples: pa.Table, features: pa.Table, schema: pa.Schema, keys: Sequence[str], order: Sequence[str], where: str
) -> pa.Table:
    """`samples` with `features` joined on `keys` and `as_of`, in the columns of `schema` and in that `order`.

    Raises:
        DataError: the join lost or multiplied rows; `where` says of which table.
    """
    plain = pa.table([_utc(column) for column in features.columns], names=features.column_names)
    on = [*(f"s.{key} = f.{key}" for key in keys), f"s.{AS_OF} = f.{EVENT_TIMESTAMP}"]
    columns = [f"{'s' if name in samples.column_names else 'f'}.{name}" for name in schema.names]
    by = [f"s.{name}" for name in order]
    with duckdb.connect() as connection:
        connection.register("samples", samples)
        connection.register("features", plain)
        query = (
            f"SELECT {', '.join(columns)} FROM samples s JOIN features f ON {' AND '.join(on)} "  # noqa: S608
            f"ORDER BY {', '.join(by)}"
        )
        found = connection.sql(query).to_arrow_table()
    if found.num_rows != samples.num_rows:
        raise DataError(
            f"Joining features turned {samples.num_rows} samples into {found.num_rows} rows.",
            where=where,
            why="The feature store answered with fewer or more rows than it was asked about.",
            do="Look for duplicate keys in the tables behind the feature views.",
        )
    return found.cast(schema)


def _utc(column: Any) -> Any:
    naive = pa.types.is_timestamp(column.type) and column.type.tz is None
    return pc.assume_timezone(column, "UTC") if naive else column
