"""Forgetting: snapshots that nobody needs any more, then the files that no remaining snapshot names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyiceberg.table import Table

from infra.lake.lake import QUARANTINE_SNAPSHOT, Lake, is_version, steering
from infra.partitions import QUARANTINE_SUFFIX

_GRACE = timedelta(hours=24)


@dataclass(frozen=True)
class Expired:
    """What was forgotten of one table: snapshots, files, and the bytes of those files."""

    table: str
    snapshots: int
    files: int
    bytes: int


def expire(lake: Lake, now: datetime | None = None) -> list[Expired]:
    """Expire snapshots older than the profile's `keep_days`, and delete unnamed files older than 24 hours.

    Never expired: the current and every tagged version, and the quarantine as it was at a kept version. The 24 hours
    protect the files of runs under way: no run may take longer from its first file to its publish. Of a table that
    grows, a version a day old says nothing that the later ones do not, and there is one every few minutes.
    """
    moment = now or datetime.now(UTC)
    before = moment - _GRACE
    report = []
    for name in (name for name in lake.contracts if not name.endswith(QUARANTINE_SUFFIX)):
        keep = lake.profile.lake.keep_days
        oldest = moment - timedelta(days=min(keep, 1) if lake.contract(name).grows else keep)
        count, needed = _expire_table(lake, name, oldest, set())
        report.append(_sweep(lake, name, count, before))
        quarantine = f"{name}{QUARANTINE_SUFFIX}"
        count, _ = _expire_table(lake, quarantine, oldest, needed)
        report.append(_sweep(lake, quarantine, count, before))
    return [*report, Expired("(scratch of killed runs)", 0, *_delete(Path(lake.root, "staging"), set(), before))]


def _expire_table(lake: Lake, name: str, oldest: datetime, needed: set[int]) -> tuple[int, set[int]]:
    """Expire; returns how many, and which snapshots of the quarantine the kept versions need."""
    table = lake.load(name)
    if table is None:
        return 0, set()
    protected = {ref.snapshot_id for ref in table.metadata.refs.values()} | needed
    cutoff = oldest.timestamp() * 1000
    kept = [s for s in table.snapshots() if s.snapshot_id in protected or (is_version(s) and s.timestamp_ms >= cutoff)]
    gone = {s.snapshot_id for s in table.snapshots()} - {s.snapshot_id for s in kept}
    if gone:
        with steering(name):
            table.maintenance.expire_snapshots().by_ids(sorted(gone)).commit()
    named = (str(s.summary[QUARANTINE_SNAPSHOT] or "") for s in kept if s.summary is not None)
    return len(gone), {int(name) for name in named if name}


def _sweep(lake: Lake, name: str, snapshots: int, before: datetime) -> Expired:
    table = lake.load(name)
    named = _named_files(table) if table is not None else set()
    data = _delete(Path(lake.root, "data", name), named, before)
    metadata = _delete(Path(lake.root, "tables", name), named, before)
    return Expired(name, snapshots, data[0] + metadata[0], data[1] + metadata[1])


def _delete(folder: Path, named: set[str], before: datetime) -> tuple[int, int]:
    """Delete old files that are not named, and folders that have long been empty; returns files and bytes."""
    old = [(path, s) for path in folder.rglob("*") if (s := path.stat()).st_mtime < before.timestamp()]
    files = {path: s.st_size for path, s in old if path.is_file() and str(path) not in named}
    for path in files:
        path.unlink()
    for path, _ in reversed(old):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return len(files), sum(files.values())


def _named_files(table: Table) -> set[str]:
    """Every file that the table still needs: data files, manifests, manifest lists, metadata."""
    manifests = {m.manifest_path: m for s in table.snapshots() for m in s.manifests(table.io)}
    data = {
        entry.data_file.file_path
        for m in manifests.values()
        for entry in m.fetch_manifest_entry(table.io, discard_deleted=True)
    }
    lists = {s.manifest_list for s in table.snapshots()}
    metadata = {table.metadata_location} | {entry.metadata_file for entry in table.metadata.metadata_log}
    return data | lists | metadata | manifests.keys()
