"""From the lake to the online store: explicit windows per partition from the ledger, counted afterwards.

Feast's incremental mode trusts a watermark that an apply resets and a future date blocks (feast #2905, #4222), so it is
never used: the ledger says which partitions an online view holds (asset `online.<view>`), and what is missing becomes
one window `[start, end)`. Feast writes whatever the window gives over what is there, newer or older. Therefore a window
always reaches the newest partition that is online, and a late or changed partition opens it from the first one: a row
that vanished must give way to an older one. A key whose every row vanished stays online: Feast deletes nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from feature_store.definitions import DAILY_VIEWS, VIEWS, DailyView, feast_objects
from feature_store.online import reconcile
from feature_store.sources import Pinned, drop_other_links, pin, require_committed, sources_of
from feature_store.store import apply, opened_store, single_writer
from infra.lake import Lake, current_keys
from infra.ledger import Ledger, run_key
from infra.partitions import PartitionWrite, RuleResult
from infra.profile import Profile

_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Materialised:
    """What was done for one view: partitions brought online (none: it was up to date), entities read back."""

    view: str
    partitions: tuple[date, ...]
    entities: int


@dataclass(frozen=True)
class Window:
    """The days [first, last] that one call writes.

    `changed` are the partitions that were not online as they are now, `withdrawn` those that are online and no longer
    in the lake (a rollback), `held` (with run keys) all that are online afterwards.
    """

    first: date
    last: date
    changed: tuple[date, ...]
    withdrawn: tuple[date, ...]
    held: Mapping[date, str]

    @property
    def start(self) -> datetime:
        """When the first day's rows become available, inclusive."""
        return midnight(self.first + timedelta(days=1))

    @property
    def end(self) -> datetime:
        """Exclusive: one day after the last day's rows become available."""
        return midnight(self.last + timedelta(days=2))


def asset_of(view: DailyView) -> str:
    """The ledger's name for the online copy of a view."""
    return f"online.{view.name}"


def midnight(day: date) -> datetime:
    """00:00 UTC."""
    return datetime.combine(day, time(), UTC)


def plan(current: Mapping[date, str], done: Mapping[date, str], first: date, last: date) -> Window | None:
    """The window that brings the days [first, last] online, with online days that changed since; None: they are there.

    Args:
        current: the run keys that the view's committed partitions ask for.
        done: the run keys under which partitions are online.
    """
    if all(done.get(day) == key for day, key in current.items() if first <= day <= last):
        return None
    online = [day for day in done if day in current]
    withdrawn = tuple(day for day in done if day not in current)
    wanted = [day for day, key in current.items() if (first <= day <= last or day in done) and done.get(day) != key]
    late = withdrawn or (online and min(wanted) <= max(online))
    start, end = min([*wanted, *online] if late else wanted), max([*wanted, *online])
    written = sorted(day for day in current if start <= day <= end)
    changed = tuple(day for day in written if done.get(day) != current[day])
    return Window(start, end, changed, withdrawn, {day: current[day] for day in {*online, *written}})


def materialize(profile: Profile, first: date, last: date) -> list[Materialised]:
    """Bring every daily view's partitions [first, last] (inclusive) into the online store.

    Raises:
        DataError: a view's table is not committed for a day of the range.
        ReconciliationError: the online store then does not answer with the newest row of every entity.
        RegistryMismatch: the registry does not hold what is defined.
        TransientError: another writer did not finish in time.
    """
    lake, ledger = Lake(profile), Ledger(profile)
    for view in DAILY_VIEWS:
        require_committed(ledger, view.table, first, last)
    with single_writer(profile):
        windows = {view: plan(*current_windows(lake, ledger, view), first, last) for view in DAILY_VIEWS}
        if not any(windows.values()):
            return [Materialised(view.name, (), 0) for view in DAILY_VIEWS]
        pins = {view.table: pin(lake, view.table) for view in VIEWS}
        with opened_store(profile) as store:
            apply(store, feast_objects(sources_of(profile, list(pins.values()))))
            drop_other_links(profile, list(pins.values()))
            return [_bring_online(store, ledger, view, pins[view.table], window) for view, window in windows.items()]


def current_windows(lake: Lake, ledger: Ledger, view: DailyView) -> tuple[dict[date, str], dict[date, str]]:
    """The run keys that the view's committed partitions ask for, and those under which partitions are online."""
    asset = asset_of(view)
    sources = current_keys(lake, ledger, view.table)
    current = {day: run_key(asset, day, [f"{view.table}/{day}/{key}"], {}, _VERSION) for day, key in sources.items()}
    return current, {day: commit.run_key for day, commit in ledger.committed(asset).items()}


def _bring_online(store: Any, ledger: Ledger, view: DailyView, pinned: Pinned, window: Window | None) -> Materialised:
    if window is None:
        return Materialised(view.name, (), 0)
    attempt = ledger.open_attempt(asset_of(view), window.changed)
    _log.info("%s: materialising %s to %s", view.name, window.start, window.end)
    with contextlib.redirect_stdout(io.StringIO()):  # Feast prints its progress in colours
        # Feast's end is inclusive; microseconds are the finest time that a table here has.
        store.materialize(window.start, window.end - timedelta(microseconds=1), feature_views=[view.name])
    entities = reconcile(store, view, [file for file in pinned.files if file.partition in window.held])
    ledger.check(attempt, *window.changed)
    online = ledger.committed(attempt.asset)
    ledger.correct([], [online[day] for day in window.withdrawn], pinned.snapshot)
    source = f"{pinned.table}@{pinned.snapshot}"
    rules = (RuleResult("online_store_reconciled", "fail", 0, "ok"),)
    writes = []
    for day in window.changed:
        # Every row of the partition is online or superseded there by a newer row of its entity: rows out are rows in.
        rows = sum(file.rows for file in pinned.files if file.partition == day)
        writes.append(PartitionWrite(day, window.held[day], (), rows, rows, inputs=(source,), rules=rules))
    ledger.record(attempt, writes, pinned.snapshot)
    return Materialised(view.name, window.changed, entities)
