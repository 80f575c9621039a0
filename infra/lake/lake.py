"""The lake: Iceberg tables over plain Parquet files. This class reads and steers; only `publish` writes rows.

Before it is live, a file lies where it will stay: `<warehouse>/data/<table>/<partition>/<run_key>/<token>/*.parquet`.
It is live only while a snapshot names it, and its path alone says which partition and which run it belongs to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from common.folders import make_folder
from infra.contracts import Contract, ContractError, all_contracts, quarantine_contract
from infra.errors import DataError, TransientError
from infra.lake.catalog import Catalog
from infra.partitions import QUARANTINE_SUFFIX, DataFile
from infra.profile import Profile

TOKEN = "plumbline.token"  # noqa: S105 (a number that fences attempts, no secret)
RUN_KEYS = "plumbline.run-keys"
QUARANTINE_SNAPSHOT = "plumbline.quarantine-snapshot"


@dataclass(frozen=True)
class Version:
    """A snapshot that a publish ended with. (A replacing publish makes two; the first, half done, is no version.)"""

    snapshot_id: int
    at: datetime
    token: int
    run_keys: str
    files: int
    rows: int
    tags: tuple[str, ...]
    current: bool


class Lake:
    """The tables of one profile; `contracts` (default: all of the checkout's) says which there are."""

    def __init__(self, profile: Profile, contracts: Mapping[str, Contract] | None = None) -> None:
        self.profile = profile
        self._given = contracts
        self.root = _folder(profile.lake.warehouse)

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        """Every table's contract, and that of its quarantine, by table name; simulated where the landed data are."""
        base = dict(self._given) if self._given is not None else all_contracts()
        if self.profile.landing_origin == "simulated":
            base = {name: replace(contract, origin="simulated") for name, contract in base.items()}
        return base | {f"{name}{QUARANTINE_SUFFIX}": quarantine_contract(contract) for name, contract in base.items()}

    @cached_property
    def catalog(self) -> Catalog:
        """The Iceberg catalogue, opened on first use."""
        return Catalog(self.profile.lake, self.root)

    def contract(self, table: str) -> Contract:
        """The contract of a table or a quarantine.

        Raises:
            ContractError: there is no such table.
        """
        if table not in self.contracts:
            known = ", ".join(name for name in self.contracts if not name.endswith(QUARANTINE_SUFFIX))
            raise ContractError(f"There is no table {table!r}.", do=f"Choose one of: {known}.")
        return self.contracts[table]

    def staging(self, table: str, run_key: str, partition: date, token: int) -> Path:
        """The folder (made) where attempt `token` writes the files of one partition; published, they stay there."""
        self.contract(table)
        return make_folder(Path(self.run_folder(table, run_key, partition)) / str(token))

    def run_folder(self, table: str, run_key: str, partition: date) -> str:
        """The folder of all attempts of one run of one partition."""
        return f"{self.root}/data/{table}/{partition.isoformat()}/{run_key}"

    def files(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        partitions: Collection[date] | None = None,
        snapshot: int | None = None,
    ) -> list[DataFile]:
        """The live files, or those of `snapshot`, by partition and path. Bounds are inclusive; no data is no files.

        Raises:
            DataError: `snapshot` is not one of the table's.
        """
        wanted = set(partitions) if partitions is not None else None
        found = (describe(entry) for entry in self.entries(self.load(table), snapshot))
        kept = (
            file
            for file in found
            if (first is None or file.partition >= first)
            and (last is None or file.partition <= last)
            and (wanted is None or file.partition in wanted)
        )
        return sorted(kept, key=lambda file: (file.partition, file.path))

    def live_keys(self, table: str, snapshot: int | None = None) -> dict[date, str]:
        """The run key of every partition that has rows."""
        return {file.partition: file.run_key for file in self.files(table, snapshot=snapshot)}

    def snapshot(self, table: str) -> int | None:
        """The newest snapshot's id; None: nothing was ever published."""
        loaded = self.load(table)
        current = loaded.current_snapshot() if loaded is not None else None
        return current.snapshot_id if current is not None else None

    def history(self, table: str) -> list[Version]:
        """The versions that can still be read, oldest first."""
        loaded = self.load(table)
        if loaded is None:
            return []
        tags: dict[int, list[str]] = {}
        for name, ref in loaded.metadata.refs.items():
            if name != "main":
                tags.setdefault(ref.snapshot_id, []).append(name)
        current = loaded.current_snapshot()
        return [
            _version(s, tuple(sorted(tags.get(s.snapshot_id, []))), s == current)
            for s in loaded.snapshots()
            if is_version(s)
        ]

    def tag(self, table: str, snapshot: int, name: str) -> None:
        """Keep a snapshot from expiring, under a name; a name that is used already moves to it."""
        loaded = self.existing(table)
        self.version(loaded, snapshot)
        with steering(table):
            loaded.manage_snapshots().create_tag(snapshot, name).commit()

    def untag(self, table: str, name: str) -> None:
        """Take a tag away; nothing happens where there is none."""
        loaded = self.existing(table)
        with steering(table):
            if name in loaded.metadata.refs:
                loaded.manage_snapshots().remove_tag(name).commit()

    def load(self, table: str) -> Table | None:
        """The Iceberg table as it is now; None before its first publish."""
        self.contract(table)
        return self.catalog.load(table)

    def entries(self, table: Table | None, snapshot: int | None = None) -> list[IcebergFile]:
        """The data files that a snapshot (default: the current one) names."""
        if table is None or (snapshot is None and table.current_snapshot() is None):
            return []
        chosen = table.current_snapshot() if snapshot is None else self.version(table, snapshot)
        assert chosen is not None
        return [
            entry.data_file
            for manifest in chosen.manifests(table.io)
            if manifest.content == ManifestContent.DATA
            and (manifest.has_added_files() or manifest.has_existing_files())
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        ]

    def version(self, table: Table, snapshot: int) -> Snapshot:
        """The version with this id.

        Raises:
            DataError: the table has none (it expired, is of another table, or is the half of a publish).
        """
        found = table.snapshot_by_id(snapshot)
        if found is None or not is_version(found):
            raise DataError(
                f"Table {table.name()[-1]!r} has no version {snapshot}.",
                why="It has expired, or belongs to another table.",
                do=f"See `python -m infra.lake history {table.name()[-1]}`.",
            )
        return found

    def set_current(self, table: str, snapshot: int) -> None:
        """Make an earlier (or later) version the current one; the ledger knows nothing of it: see `rollback`."""
        loaded = self.existing(table)
        self.version(loaded, snapshot)
        with steering(table):
            loaded.manage_snapshots().set_current_snapshot(snapshot_id=snapshot).commit()

    def existing(self, table: str) -> Table:
        """The Iceberg table.

        Raises:
            DataError: nothing was ever published to it.
        """
        loaded = self.load(table)
        if loaded is None:
            raise DataError(f"Nothing was ever published to {table!r}.", do="Run the job that fills it.")
        return loaded


def describe(entry: IcebergFile) -> DataFile:
    """A live file, read off its path."""
    _table, partition, run_key, _token, _name = entry.file_path.rsplit("/", 5)[1:]
    return DataFile(entry.file_path, date.fromisoformat(partition), entry.record_count, run_key)


@contextmanager
def steering(table: str) -> Iterator[None]:
    """Around a change of versions or tags.

    Raises:
        TransientError: a publish changed the table at the same moment.
    """
    try:
        yield
    except CommitFailedException as error:
        raise TransientError(
            f"Table {table!r} was changed by another process at the same moment.", why=str(error), do="Run again."
        ) from error


def is_version(snapshot: Snapshot) -> bool:
    """Whether a publish ended with this snapshot."""
    return snapshot.summary is not None and snapshot.summary[TOKEN] is not None


def _version(snapshot: Snapshot, tags: tuple[str, ...], current: bool) -> Version:
    summary = snapshot.summary
    assert summary is not None
    return Version(
        snapshot_id=snapshot.snapshot_id,
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        token=int(summary[TOKEN]),
        run_keys=str(summary[RUN_KEYS]),
        files=int(summary["total-data-files"] or 0),
        rows=int(summary["total-records"] or 0),
        tags=tags,
        current=current,
    )


def _folder(warehouse: str) -> str:
    if "://" in warehouse:
        raise DataError(
            "The warehouse must be a folder that every process of the installation sees.",
            where=warehouse,
            why="Jobs stage files with the operations of a file system (make, rename, list).",
            do="Mount the object store (or use a shared volume) and give the folder's path.",
        )
    return str(Path(warehouse).absolute())
