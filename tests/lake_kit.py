"""A small shop for tests of the lake and the ledger: one table, `sales`, whose rows of a day are a list of amounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts import Contract, arrow_schema, load_contract, parse_contract, quarantine_contract
from infra.lake import Lake, Published, publish
from infra.ledger import Attempt, Ledger, run_key
from infra.partitions import PartitionWrite, RuleResult
from infra.profile import Profile, load_profile

DAY = date(2024, 2, 27)


def day(number: int) -> date:
    return DAY + timedelta(days=number)


def sales_contract(*extra: Mapping[str, Any]) -> Contract:
    properties = [
        {"name": "day", "physicalType": "date", "required": True, "partitioned": True},
        {"name": "shop", "physicalType": "string", "required": True, "primaryKey": True},
        {"name": "amount", "physicalType": "long"},
        {"name": "sold_at", "physicalType": "timestamp"},
        {"name": "tags", "physicalType": "array<string>"},
        *extra,
    ]
    raw = {
        "description": {"purpose": "Sales."},
        "team": {"name": "tests"},
        "customProperties": [
            {"property": "origin", "value": "simulated"},
            {"property": "maxBadShare", "value": 0.5},
        ],
        "schema": [
            {
                "name": "sales",
                "dataGranularityDescription": "One row per sale.",
                "properties": [{"description": "A column.", **p} for p in properties],
            }
        ],
    }
    return parse_contract(raw, "tests")


@dataclass(frozen=True)
class Day:
    """What a run makes of one day: the amounts that go on, and those that it refuses."""

    good: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()


class Shop:
    """A lake and a ledger under `home`, and jobs that fill `sales`."""

    def __init__(self, home: Path, contract: Contract | None = None) -> None:
        self.home = home
        self.contract = contract or sales_contract()

    @cached_property
    def profile(self) -> Profile:
        return load_profile("local", environ={"PLUMBLINE__HOME": str(self.home)})

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.profile, {"sales": self.contract})

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.profile)

    def stage(self, days: Mapping[date, Day], attempt: Attempt) -> list[PartitionWrite]:
        return [self._stage(when, what, attempt) for when, what in days.items()]

    def open(self, days: Mapping[date, Day]) -> Attempt:
        return self.ledger.open_attempt("sales", list(days))

    def publish(self, days: Mapping[date, Day]) -> Published:
        attempt = self.open(days)
        return publish(self.lake, self.ledger, "sales", self.stage(days, attempt), attempt)

    def rows(self, snapshot: int | None = None) -> dict[date, tuple[int, ...]]:
        found: dict[date, tuple[int, ...]] = {}
        for file in self.lake.files("sales", snapshot=snapshot):
            amounts = pq.read_table(file.path, columns=["amount"], partitioning=None)["amount"].to_pylist()
            found[file.partition] = tuple(sorted((*found.get(file.partition, ()), *amounts)))
        return found

    def refused(self) -> dict[date, int]:
        return {file.partition: file.rows for file in self.lake.files("sales_quarantine")}

    def told(self) -> dict[date, tuple[str, int, int, int]]:
        """What the ledger says, without what differs from attempt to attempt."""
        commits = self.ledger.committed("sales")
        return {d: (c.run_key, c.rows_in, c.rows_out, c.rows_quarantined) for d, c in commits.items()}

    def state(self) -> tuple[Any, ...]:
        return self.rows(), self.refused(), self.told()

    def _stage(self, when: date, what: Day, attempt: Attempt) -> PartitionWrite:
        key = key_of(when, what)
        write = PartitionWrite(when, key, (), len(what.good) + len(what.bad), len(what.good), inputs=(str(what),))
        if what.good:
            path = self.lake.staging("sales", key, when, attempt.token) / "part-0.parquet"
            pq.write_table(good_rows(when, what.good, self.contract), path)
            write = replace(write, files=(str(path),))
        if what.bad:
            path = self.lake.staging("sales_quarantine", key, when, attempt.token) / "part-0.parquet"
            pq.write_table(_bad_rows(when, what.bad, key, self.contract), path)
            rule = RuleResult("amount_known", "fail", len(what.bad), "failed")
            write = replace(write, quarantine_files=(str(path),), rows_quarantined=len(what.bad), rules=(rule,))
        return write


def put(profile: Profile, table: str, rows: pa.Table) -> None:
    """The rows as partitions of a table of the project, unjudged: as if the job that builds it had run."""
    lake, ledger, day = Lake(profile), Ledger(profile), load_contract(table).partition
    parts = {when: rows.filter(pc.equal(rows[day], when)) for when in rows[day].unique().to_pylist()}
    attempt, writes = ledger.open_attempt(table, list(parts)), []
    for when, part in parts.items():
        key = run_key(table, when, [str(part.to_pylist())], {}, 1)
        path = lake.staging(table, key, when, attempt.token) / "part-0.parquet"
        pq.write_table(part, path, coerce_timestamps="us")
        writes.append(PartitionWrite(when, key, (str(path),), len(part), len(part)))
    publish(lake, ledger, table, writes, attempt)


def key_of(when: date, what: Day) -> str:
    return run_key("sales", when, [repr(what)], {}, 1)


def good_rows(when: date, amounts: Sequence[int], contract: Contract) -> pa.Table:
    noon = datetime(when.year, when.month, when.day, 12, tzinfo=UTC)
    values: dict[str, object] = {
        "date": when,
        "string": "a",
        "double": 0.5,
        "timestamp": noon,
        "array<string>": ["x"],
        "array<long>": [1],
    }
    rows = [{c.name: values.get(c.type) for c in contract.columns} | {"amount": n} for n in amounts]
    return pa.Table.from_pylist(rows, schema=arrow_schema(contract))


def _bad_rows(when: date, amounts: Sequence[int], key: str, contract: Contract) -> pa.Table:
    rows = [
        {"day": when, "run_key": key, "rule": "amount_known", "key_json": "{}", "row_json": str(n)} for n in amounts
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(quarantine_contract(contract)))
