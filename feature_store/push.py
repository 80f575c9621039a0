"""From the lake to the online store as rows are made: of a table that grows, what was added since, and nothing else.

The ledger says under which version of its table a view is online (asset `online.<view>`). What has joined a partition
since is told, of each entity the newest row; a row that an entity's newer one has overtaken is not. Told twice, after a
kill before the ledger knew, a row says the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.definitions import EVENT_TIME, PROJECT, PUSHED_VIEWS, DailyView
from feature_store.materialize import Materialised, asset_of, current_windows
from feature_store.online import newest_of, reconcile_rows
from feature_store.point_in_time import scan_rows
from feature_store.serve import apply_definitions
from feature_store.sources import pin
from feature_store.store import opened_store, single_writer
from infra.errors import DataError
from infra.lake import Lake
from infra.ledger import Ledger
from infra.partitions import PartitionWrite, RuleResult
from infra.profile import Profile

_AT_ONCE = 5_000
_log = logging.getLogger(__name__)


def pushed_view(name: str) -> DailyView:
    """The view of that name. DataError where there is none whose rows are told as they are made."""
    for view in PUSHED_VIEWS:
        if view.name == name:
            return view
    known = ", ".join(view.name for view in PUSHED_VIEWS)
    raise DataError(f"{name!r} is no view that is pushed.", do=f"Choose one of: {known}.")


def pending(profile: Profile, view: DailyView) -> list[date]:
    """The partitions that have rows of which the online store was not told."""
    current, done = current_windows(Lake(profile), Ledger(profile), view)
    return sorted(day for day, key in current.items() if done.get(day) != key)


def push(profile: Profile, view: DailyView) -> Materialised:
    """Tell the online store of all rows that it was not told of; read back.

    Raises:
        ReconciliationError: it does not answer with them then.
        TransientError: another writer did not finish in time.
    """
    if not pending(profile, view):
        return Materialised(view.name, (), 0)
    with opened_store(profile) as store:
        if not _is_registered(store, view):
            apply_definitions(profile)
        with single_writer(profile):
            return _push(store, Lake(profile), Ledger(profile), view)


def _push(store: Any, lake: Lake, ledger: Ledger, view: DailyView) -> Materialised:
    current, done = current_windows(lake, ledger, view)
    days = sorted(day for day, key in current.items() if done.get(day) != key)
    if not days:
        return Materialised(view.name, (), 0)
    attempt, pinned = ledger.open_attempt(asset_of(view), days), pin(lake, view.table, days[0])
    held = {day: commit.snapshot_id for day, commit in ledger.committed(attempt.asset).items()}
    added = pa.concat_tables(_added(lake, view, day, pinned.snapshot, held.get(day)) for day in days)
    fresh = _not_overtaken(view, added, pinned.paths)
    for start in range(0, len(fresh), _AT_ONCE):
        rows = fresh.slice(start, _AT_ONCE).to_pandas()
        store.write_to_online_store(view.name, rows, allow_registry_cache=False)
        _log.info("%s: %d of %d rows told", view.name, min(start + _AT_ONCE, len(fresh)), len(fresh))
    entities = reconcile_rows(store, view, newest_of(view, fresh))
    counts = {day: sum(file.rows for file in pinned.files if file.partition == day) for day in days}
    source, rules = f"{view.table}@{pinned.snapshot}", (RuleResult("online_store_reconciled", "fail", 0, "ok"),)
    writes = [PartitionWrite(day, current[day], (), n, n, inputs=(source,), rules=rules) for day, n in counts.items()]
    ledger.check(attempt, *days)
    ledger.record(attempt, writes, pinned.snapshot)
    return Materialised(view.name, tuple(days), entities)


def _added(lake: Lake, view: DailyView, day: date, snapshot: int | None, held: int | None) -> pa.Table:
    """The rows of a partition that the version `held` did not have: all, where that is gone."""
    now = _rows(lake, view, day, snapshot)
    try:
        before = _rows(lake, view, day, held) if held is not None else now.slice(0, 0)
    except DataError:  # it has expired
        before = now.slice(0, 0)
    key = list(view.contract.key)
    numbered = now.select(key).append_column("_row", pa.array(range(len(now)), pa.int64()))
    return now.take(numbered.join(before.select(key), key, join_type="left anti").sort_by("_row")["_row"])


def _rows(lake: Lake, view: DailyView, day: date, snapshot: int | None) -> pa.Table:
    files = lake.files(view.table, partitions=[day], snapshot=snapshot)
    return scan_rows([file.path for file in files], view.contract).to_table(columns=list(_columns(view)))


def _columns(view: DailyView) -> Iterator[str]:
    yield from dict.fromkeys((view.entity.key, EVENT_TIME, *view.contract.key, *view.features))


def _not_overtaken(view: DailyView, rows: pa.Table, files: Sequence[str]) -> pa.Table:
    """Of each entity the newest row, where no row of `files` is newer."""
    entity, newest = view.entity.key, f"{EVENT_TIME}_max"
    times = scan_rows(files, view.contract).to_table(columns=[entity, EVENT_TIME])
    latest = times.group_by(entity).aggregate([(EVENT_TIME, "max")])
    joined = rows.select([entity, EVENT_TIME]).append_column("_row", pa.array(range(len(rows)), pa.int64()))
    joined = joined.join(latest, entity).filter(pc.field(EVENT_TIME) == pc.field(newest)).sort_by("_row")
    last = joined.group_by(entity).aggregate([("_row", "max")])["_row_max"]
    return rows.take(last).select([entity, EVENT_TIME, *view.features])


def _is_registered(store: Any, view: DailyView) -> bool:
    """Whether the registry knows the view as it is defined now."""
    from feast.errors import FeatureViewNotFoundException

    try:
        found = store.registry.get_feature_view(view.name, PROJECT, allow_cache=False)
    except FeatureViewNotFoundException:
        return False
    return {field.name for field in found.features} == set(view.features)
