"""Going back to an earlier version: the table, its quarantine as it was then, and what the ledger says, together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from infra.errors import DataError
from infra.lake.lake import QUARANTINE_SNAPSHOT, Lake
from infra.lake.publish import empty
from infra.ledger import Ledger
from infra.partitions import QUARANTINE_SUFFIX, Commit


@dataclass(frozen=True)
class RolledBack:
    """Partitions that hold an earlier run again, and partitions that hold nothing now and are missing in the ledger."""

    restored: tuple[date, ...]
    withdrawn: tuple[date, ...]


def rollback(lake: Lake, ledger: Ledger, table: str, snapshot: int) -> RolledBack:
    """Make version `snapshot` of `table` the current one. A rollback can be undone by another to the later version.

    Attempts that are under way on a partition that changes become stale, so none undoes the rollback by accident.

    Raises:
        DataError: there is no such version.
    """
    if table.endswith(QUARANTINE_SUFFIX):
        raise DataError("A quarantine goes back with its table.", do=f"Roll back {table[: -len(QUARANTINE_SUFFIX)]}.")
    version = lake.version(lake.existing(table), snapshot)
    before, after = lake.live_keys(table), lake.live_keys(table, snapshot)
    changing = [day for day in before.keys() | after.keys() if before.get(day) != after.get(day)]
    ledger.open_attempt(table, changing)
    assert version.summary is not None
    quarantine = f"{table}{QUARANTINE_SUFFIX}"
    set_aside = str(version.summary[QUARANTINE_SNAPSHOT])
    if set_aside:
        lake.set_current(quarantine, int(set_aside))
    else:
        empty(lake, quarantine)
    lake.set_current(table, snapshot)
    return _correct_ledger(ledger, table, after, snapshot)


def _correct_ledger(ledger: Ledger, table: str, live: dict[date, str], snapshot: int) -> RolledBack:
    """Let the newest row of each partition tell of the run that is live; a second rollback completes a killed one."""
    committed = ledger.committed(table)
    restored: list[Commit] = []
    withdrawn: list[Commit] = []
    for day in sorted(live.keys() | committed.keys()):
        known = committed.get(day)
        if day not in live:
            if known is not None and known.rows_out > 0:
                withdrawn.append(known)
        elif known is None or known.run_key != live[day]:
            earlier = [commit for commit in ledger.history(table, day) if commit.run_key == live[day]]
            if earlier:
                restored.append(earlier[-1])
    ledger.correct(restored, withdrawn, snapshot)
    return RolledBack(tuple(commit.partition for commit in restored), tuple(commit.partition for commit in withdrawn))
