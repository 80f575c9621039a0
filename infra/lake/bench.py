"""`publish`: what a commit costs beyond writing its files, for tables of 1 to 1,000 partitions."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.console import print_table
from infra.contracts import Contract, arrow_schema, parse_contract
from infra.lake import Lake, publish
from infra.ledger import Ledger, run_key
from infra.partitions import PartitionWrite
from infra.profile import load_profile

_SIZES = (1, 10, 100, 300, 1_000)
_ROWS = 100
_FIRST = date(2020, 1, 1)


@dataclass(frozen=True)
class Cost:
    """Seconds: writing the files of all partitions, their one commit, the commit of one changed day beside them."""

    partitions: int
    writing: float
    first_load: float
    one_day: float


def bench_publish(runs: int = 5) -> dict[str, Any]:
    """The commit of a first load of 1,000 partitions, in seconds beyond writing their files; the curve beside it."""
    measured = [[_measure(size) for _ in range(runs)] for size in _SIZES]
    curve = []
    for costs in measured:
        seconds = {x: statistics.median(getattr(c, x) for c in costs) for x in ("writing", "first_load", "one_day")}
        curve.append(Cost(costs[0].partitions, **seconds))
    rows = [(c.partitions, *(f"{x:.3f}" for x in (c.writing, c.first_load, c.one_day))) for c in curve]
    print_table(("partitions", "writing files (s)", "first load: commit (s)", "one more day: commit (s)"), rows, "")
    figures = {"ours": curve[-1].first_load, "unit": "s", "runs": runs}
    return figures | {"all_runs": [c.first_load for c in measured[-1]], "curve": [vars(cost) for cost in curve]}


def _measure(partitions: int) -> Cost:
    days = [_FIRST + timedelta(days=number) for number in range(partitions)]
    with tempfile.TemporaryDirectory() as home:
        profile = load_profile("local", environ={"PLUMBLINE__HOME": home})
        lake, ledger = Lake(profile, {"measured": _contract()}), Ledger(profile)
        writing, first_load = _load(lake, ledger, days, "first")
        _, one_day = _load(lake, ledger, days[partitions // 2 :][:1], "changed")
    return Cost(partitions, writing, first_load, one_day)


def _load(lake: Lake, ledger: Ledger, days: Sequence[date], what: str) -> tuple[float, float]:
    attempt = ledger.open_attempt("measured", days)
    start = time.perf_counter()
    writes = [_write(lake, day, what, attempt.token) for day in days]
    written = time.perf_counter()
    publish(lake, ledger, "measured", writes, attempt)
    return written - start, time.perf_counter() - written


def _write(lake: Lake, day: date, what: str, token: int) -> PartitionWrite:
    contract = lake.contract("measured")
    key = run_key("measured", day, [what], {}, 1)
    path = lake.staging("measured", key, day, token) / "part-0.parquet"
    columns = {"day": [day] * _ROWS, "user_id": ["u"] * _ROWS, "value": [1.0] * _ROWS}
    rows = pa.table(columns, schema=arrow_schema(contract))
    pq.write_table(rows, path)
    return PartitionWrite(day, key, (str(path),), _ROWS, _ROWS)


def _contract() -> Contract:
    columns = (("day", "date", True), ("user_id", "string", False), ("value", "double", False))
    return parse_contract(
        {
            "description": {"purpose": "Measured."},
            "team": {"name": "infra"},
            "customProperties": [
                {"property": "origin", "value": "simulated"},
                {"property": "maxBadShare", "value": 0.0},
            ],
            "schema": [
                {
                    "name": "measured",
                    "dataGranularityDescription": "One row per measurement.",
                    "properties": [
                        {"name": name, "physicalType": kind, "partitioned": partition, "description": name}
                        for name, kind, partition in columns
                    ],
                }
            ],
        },
        "infra/lake/bench.py",
    )
