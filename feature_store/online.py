"""Reading the online store back: does it answer with the newest materialised row of every entity?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.definitions import EVENT_TIME, DailyView
from feature_store.point_in_time import read_rows
from infra.errors import PlumblineError
from infra.lake import DataFile

_BATCH = 1000
_NAMED = 10


class ReconciliationError(PlumblineError):
    """The online store does not hold what was materialised."""


def reconcile(store: Any, view: DailyView, files: Sequence[DataFile]) -> int:
    """Compare the online row of every entity in `files` with its newest row there; returns the number of entities.

    Raises:
        ReconciliationError: naming keys that are missing or that answer with other values.
    """
    return reconcile_rows(store, view, newest_rows(view, files))


def reconcile_rows(store: Any, view: DailyView, expected: Mapping[str, dict[str, Any]]) -> int:
    """The same of rows in the shape of `newest_rows`."""
    online = online_rows(store, view, list(expected))
    missing = [key for key in expected if key not in online]
    different = [key for key, row in expected.items() if key in online and online[key] != row]
    if missing or different:
        raise ReconciliationError(
            f"The online view {view.name!r} should hold {len(expected)} entities: {len(missing)} are missing and "
            f"{len(different)} have other values than the lake.",
            where=f"{view.entity.key}: {', '.join([*missing, *different][:_NAMED])}",
            why="Another process wrote to the online store, or lost what was written.",
            do="Run the same command again; the ledger has not recorded this run.",
        )
    return len(expected)


def newest_rows(view: DailyView, files: Sequence[DataFile]) -> dict[str, dict[str, Any]]:
    """Each entity's values in its newest row, with `available_at`; times in whole seconds, as Feast keeps them."""
    columns = [view.entity.key, EVENT_TIME, *view.features]
    return newest_of(view, read_rows([file.path for file in files], view.contract).select(columns))


def newest_of(view: DailyView, rows: pa.Table) -> dict[str, dict[str, Any]]:
    """The same of rows with the entity's key, `available_at` and the features."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows.take(pc.sort_indices(rows, sort_keys=[(EVENT_TIME, "ascending")])).to_pylist():
        key = row.pop(view.entity.key)
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = value.replace(microsecond=0)
        newest[key] = row
    return newest


def online_rows(store: Any, view: DailyView, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the online store answers about `keys`, in the shape of `newest_rows`; keys it does not know are left out."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(keys), _BATCH):
        found.update(_online_batch(store, view, keys[start : start + _BATCH]))
    return found


def _online_batch(store: Any, view: DailyView, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = [f"{view.name}:{feature}" for feature in view.features]
    answer = store.get_online_features(wanted, entity_rows=[{view.entity.key: key} for key in keys])
    columns = answer.to_dict(include_event_timestamps=True)
    times = columns[f"{view.features[0]}__ts"]
    for number, (key, seconds) in enumerate(zip(columns[view.entity.key], times, strict=True)):
        if seconds:  # 0: Feast knows no row of the key
            values = {feature: columns[feature][number] for feature in view.features}
            yield key, {EVENT_TIME: datetime.fromtimestamp(seconds, UTC), **values}
