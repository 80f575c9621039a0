"""The index of queries by what was done, online: whole nights, of which one is in force.

A row's key begins with the version of its index, and one row more names the version in force (`POINTER`). A night is
written beside the others, read back, and only then named: a publication that fails or is killed leaves the old index in
force, and whoever has read the name reads one whole index, during the switch too, since the one before is kept. Older
ones are removed, or expire where the store can do that by itself. An index is named by its day and by a hash of what
its partition is made of, so that the same night again is the same index.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from feature_store.definitions import EVENT_TIME, INDEX_VERSION, PROJECT, TRIGGER_QUERIES, IndexView
from feature_store.materialize import asset_of, current_windows, midnight
from feature_store.online import ReconciliationError, online_rows
from feature_store.point_in_time import scan_rows
from feature_store.serve import apply_definitions
from feature_store.sources import Pinned, pin
from feature_store.store import opened_store, single_writer
from infra.lake import Lake
from infra.ledger import Ledger
from infra.partitions import PartitionWrite, RuleResult
from infra.profile import Profile

POINTER = "in force"
"""The key of the row that names the version in force: no other key is without a version."""
_AT_ONCE = 2000
_REMOVED_AT_ONCE = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """The version in force, and how many keys were written for it; 0: it was in force already."""

    version: str
    keys: int


def key_of(version: str, kind: str, trigger: str) -> str:
    """Under which key the queries of a trigger lie."""
    return f"{version}|{kind}|{trigger}"


def version_in_force(store: Any, view: IndexView = TRIGGER_QUERIES) -> str | None:
    """The version that is to be asked; None before the first night."""
    found = online_rows(store, view, [POINTER])
    return found[POINTER][INDEX_VERSION] if found else None


def publish_index(profile: Profile, view: IndexView = TRIGGER_QUERIES) -> Published | None:
    """Bring the newest partition of the view's table online and in force; None where there is none.

    Raises:
        ReconciliationError: the store does not answer with what was written; the old index stays in force.
        StaleAttempt: a newer attempt publishes; the old index stays in force.
        TransientError: another writer did not finish in time.
    """
    lake, ledger = Lake(profile), Ledger(profile)
    if not current_windows(lake, ledger, view)[0]:
        return None
    apply_definitions(profile)
    with single_writer(profile), opened_store(_expiring(profile, view)) as store:
        current, done = current_windows(lake, ledger, view)
        day = max(current)
        version, before = _version(day, current[day]), version_in_force(store, view)
        if version == before and done.get(day) == current[day]:
            return Published(version, 0)
        attempt, pinned = ledger.open_attempt(asset_of(view), [day]), pin(lake, view.table, day, day)
        rows = _rows(view, version, pinned)
        _write(store, view, rows, day)
        _read_back(store, view, rows)
        ledger.check(attempt, day)
        _write(store, view, {POINTER: {**{name: [] for name in view.listed}, INDEX_VERSION: version}}, day)
        _log.info("%s: version %s in force, after %s", view.name, version, before)
        count = sum(file.rows for file in pinned.files)
        write = PartitionWrite(
            *(day, current[day], (), count, count),
            inputs=(f"{view.table}@{pinned.snapshot}",),
            rules=(RuleResult("online_store_reconciled", "fail", 0, "ok"),),
        )
        ledger.record(attempt, [write], pinned.snapshot)
        if before != version:
            _forget_others(profile, ledger, view, {version, before or version}, pinned.snapshot)
        return Published(version, len(rows))


def _version(day: date, key: str) -> str:
    return f"{day}-{key[:12]}"


def _rows(view: IndexView, version: str, pinned: Pinned) -> dict[str, dict[str, Any]]:
    """The features of each key."""
    *key, place = view.contract.key
    columns = [*key, place, *view.listed]
    table = scan_rows(pinned.paths, view.contract).to_table(columns=columns)
    lines = table.sort_by([(name, "ascending") for name in (*key, place)]).to_pylist()
    found = dict[str, dict[str, Any]]()
    for trigger, own in groupby(lines, key=lambda line: tuple(line[name] for name in key)):
        listed = list(own)
        values = {name: [line[name] for line in listed] for name in view.listed}
        found[key_of(version, *trigger)] = {**values, INDEX_VERSION: version}
    return found


def _write(store: Any, view: IndexView, rows: Mapping[str, Mapping[str, Any]], day: date) -> None:
    """Transaction by transaction, each short: who reads waits for none of them for long."""
    import pandas as pd

    time = midnight(day)
    keys = list(rows)
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        lines = [{view.entity.key: key, EVENT_TIME: time, **rows[key]} for key in part]
        store.write_to_online_store(view.name, pd.DataFrame(lines), allow_registry_cache=False)
        if len(keys) > _AT_ONCE:
            _log.info("%s: %d of %d keys written", view.name, start + len(part), len(keys))


def _read_back(store: Any, view: IndexView, rows: Mapping[str, Mapping[str, Any]]) -> None:
    online = online_rows(store, view, list(rows))
    wrong = [key for key, row in rows.items() if {name: online.get(key, {}).get(name) for name in row} != row]
    if wrong:
        raise ReconciliationError(
            f"Of {len(rows)} keys of the online view {view.name!r}, {len(wrong)} do not answer with what was written.",
            where=f"{view.entity.key}: {', '.join(wrong[:10])}",
            why="Another process wrote to the online store, or lost what was written.",
            do="Run the same command again; the index before is still in force.",
        )


def _forget_others(
    profile: Profile, ledger: Ledger, view: IndexView, kept: Collection[str], snapshot: int | None
) -> None:
    """Take what is neither in force nor the one before it out of the ledger, and out of a store that keeps all."""
    online = ledger.committed(asset_of(view))
    gone = [commit for day, commit in online.items() if _version(day, commit.run_key) not in kept]
    ledger.correct([], gone, snapshot)
    if profile.feast.online_store["type"] == "sqlite":
        _remove(profile.feast.online_store["path"], f"{PROJECT}_{view.name}", [POINTER, *kept])


def _remove(path: str, table: str, kept: Sequence[str]) -> None:
    """Feast deletes nothing: rows whose key has none of these texts go, some at a time."""
    other = " AND ".join(["instr(entity_key, ?) = 0"] * len(kept))
    some = f'SELECT rowid FROM "{table}" WHERE {other} LIMIT {_REMOVED_AT_ONCE}'  # noqa: S608 - names of ours
    texts, left = [text.encode() for text in kept], True
    with closing(sqlite3.connect(path)) as connection:
        while left:
            with connection:
                done = connection.execute(f'DELETE FROM "{table}" WHERE rowid IN ({some})', texts)  # noqa: S608
            left = done.rowcount > 0


def _expiring(profile: Profile, view: IndexView) -> Profile:
    """Redis lets keys expire by itself, each since it was written last."""
    settings = profile.feast.online_store
    if settings["type"] != "redis":
        return profile
    online = {**settings, "key_ttl_seconds": int(view.ttl.total_seconds())}
    return profile.model_copy(update={"feast": profile.feast.model_copy(update={"online_store": online})})
