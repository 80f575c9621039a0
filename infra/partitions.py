"""The unit of work, for lake and ledger: one partition of one table, built by one attempt under one run key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

QUARANTINE_SUFFIX = "_quarantine"
_STAND_IN = "stand-in-"


@dataclass(frozen=True)
class RuleResult:
    """What one rule of the contract said about one partition; `status` is `error` where the rule itself raised."""

    rule: str
    level: str
    rows_failed: int
    status: Literal["ok", "failed", "error"]


@dataclass(frozen=True)
class PartitionWrite:
    """One partition, written to its staging folder, ready to be published. `inputs` are the files it was made of."""

    partition: date
    run_key: str
    files: tuple[str, ...]
    rows_in: int
    rows_out: int
    quarantine_files: tuple[str, ...] = ()
    rows_quarantined: int = 0
    inputs: tuple[str, ...] = ()
    config_hash: str = ""
    rules: tuple[RuleResult, ...] = ()


@dataclass(frozen=True)
class DataFile:
    """A live Parquet file; `path` is absolute and plain (no `file:` scheme)."""

    path: str
    partition: date
    rows: int
    run_key: str


@dataclass(frozen=True)
class Attempt:
    """One start of one task. A larger token is a later attempt; only the latest may publish a partition."""

    asset: str
    token: int
    partitions: tuple[date, ...]
    started: datetime


@dataclass(frozen=True)
class Commit:
    """One row of the ledger. `action`: `publish`, or `restore` / `withdraw` where a rollback changed what is live."""

    asset: str
    partition: date
    run_key: str
    token: int
    snapshot_id: int | None
    action: Literal["publish", "restore", "withdraw"]
    rows_in: int
    rows_out: int
    rows_quarantined: int
    inputs: tuple[str, ...]
    config_hash: str
    code_commit: str
    started: datetime
    committed: datetime
    rules: tuple[RuleResult, ...] = ()


def run_key(asset: str, partition: date, inputs: Sequence[str], config: Mapping[str, Any], version: int) -> str:
    """Sha256 (hex) of all that decides the content of a partition; `inputs` and the keys of `config` in any order.

    Never part of it: the code commit, the run id, or a whole-table snapshot, with which one day's publish would make
    every other day out of date.
    """
    parts = [asset, partition.isoformat(), sorted(inputs), config, version]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def stand_in(key: str) -> str:
    """The run key of a version that holds the place of `key`, which its contract refuses: each run tries that again."""
    return f"{_STAND_IN}{key}"


def stands_in(key: str) -> bool:
    """Whether the version of this run key has more bad rows than its contract allows."""
    return key.startswith(_STAND_IN)


def due_again(first: date, last: date, after_days: Sequence[int], there: Collection[date]) -> list[date]:
    """The partitions that are `there`, before `first`, and so many days old on a day of [first, last]; in order."""
    ages = [timedelta(days=n) for n in after_days]
    return sorted(day for day in there if day < first and any(first <= day + age <= last for age in ages))
