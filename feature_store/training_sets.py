"""Training sets: a sample table with features joined as of each sample's `as_of`, published like any other table.

The features come from a Feast registry that is made for the pinned snapshots and thrown away. Only partitions that are
missing or out of date are made: those whose live run key is not the one that samples and statistics now ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.truth import refuse_truth
from feature_store.checks import check
from feature_store.definitions import DailyView, service_views
from feature_store.point_in_time import attach, entity_keys, join_features, read_rows
from feature_store.sources import Pinned, pin, require_committed
from infra.contracts import Contract, load_contract
from infra.errors import DataError
from infra.lake import Lake, Published, current_keys, publish
from infra.ledger import Ledger, run_key
from infra.partitions import Attempt, DataFile, PartitionWrite, due_again
from infra.profile import Profile

_ROWS_AT_ONCE = 250_000


@dataclass(frozen=True)
class TrainingSet:
    """A table that is `samples` plus the features of `service`. Raise `version` when the join would give other rows.

    `again`: after how many days a partition is looked at again, which are those of the job that makes the samples.
    """

    table: str
    samples: str
    service: str
    version: int = 1
    again: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        refuse_truth([self.samples], self.table, "feature_store/training_sets.py")


NEXT_ITEM = TrainingSet("next_item_training_set", "next_item_samples", "next_item_v1")
JUDGE = TrainingSet("judge_training_set", "judge_examples", "semantic_judge_v1", again=(30, 90, 365))
HINTS = TrainingSet("hint_training_set", "hint_samples", "hint_ranker_v1")
TRAINING_SETS = {wanted.table: wanted for wanted in (NEXT_ITEM, JUDGE, HINTS)}


def training_set(table: str) -> TrainingSet:
    """The training set of this name.

    Raises:
        DataError: there is none.
    """
    if table not in TRAINING_SETS:
        raise DataError(f"There is no training set {table!r}.", do=f"Choose one of: {', '.join(TRAINING_SETS)}.")
    return TRAINING_SETS[table]


def build_training_set(profile: Profile, wanted: TrainingSet, first: date, last: date) -> Published | None:
    """Bring the partitions `[first, last]` (inclusive) up to date, and those that are due again; None: they were.

    Raises:
        DataError: samples are not committed for a day of the range, or a feature does not fit its sample (a leak).
        StaleAttempt: a newer attempt is open.
    """
    lake, ledger = Lake(profile), Ledger(profile)
    require_committed(ledger, wanted.samples, first, last)
    own = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    days = [*due_again(first, last, wanted.again, ledger.committed(wanted.table)), *own]
    pins = pins_of(lake, wanted.service, days[0], last)
    samples = pin(lake, wanted.samples, days[0], last)
    keys = _expected_keys(wanted, samples, pins, days)
    live = current_keys(lake, ledger, wanted.table)
    todo = {day: key for day, key in keys.items() if live.get(day) != key}
    if not todo:
        return None
    attempt = ledger.open_attempt(wanted.table, list(todo))
    inputs = tuple(f"{pinned.table}@{pinned.snapshot}" for pinned in (samples, *pins.values()))
    writes = list[PartitionWrite]()
    for part in _parts(todo, samples):
        rows = _rows(profile, wanted, samples, list(pins.values()), part)
        writes += _stage(lake, load_contract(wanted.table), rows, part, attempt, inputs)
    return publish(lake, ledger, wanted.table, writes, attempt)


def pins_of(lake: Lake, service: str, first: date, last: date) -> dict[DailyView, Pinned]:
    """What samples of [first, last] can see: rows not older than the ttl, of days before their own."""
    one_day, views = timedelta(days=1), service_views(service)
    return {view: pin(lake, view.table, first - view.ttl - one_day, last - one_day) for view in views}


def _parts(todo: Mapping[date, str], samples: Pinned) -> list[dict[date, str]]:
    """The days of `todo` in runs of at most `_ROWS_AT_ONCE` samples, or of one day: what is in memory at a time."""
    counts = Counter[date]()
    for file in samples.files:
        counts[file.partition] += file.rows
    parts, rows = [dict[date, str]()], 0
    for day, key in todo.items():
        if parts[-1] and rows + counts[day] > _ROWS_AT_ONCE:
            parts.append({})
            rows = 0
        parts[-1][day] = key
        rows += counts[day]
    return parts


def _expected_keys(
    wanted: TrainingSet, samples: Pinned, pins: Mapping[DailyView, Pinned], days: Sequence[date]
) -> dict[date, str]:
    config = {"service": wanted.service}
    return {day: run_key(wanted.table, day, _inputs(day, samples, pins), config, wanted.version) for day in days}


def _inputs(day: date, samples: Pinned, pins: Mapping[DailyView, Pinned]) -> list[str]:
    """What the partition is made of; a file is named by partition and run key, wherever the warehouse lies."""
    names = [_name(samples.table, file) for file in samples.files if file.partition == day]
    for view, pinned in pins.items():
        oldest = day - view.ttl - timedelta(days=1)
        names += [_name(pinned.table, file) for file in pinned.files if oldest <= file.partition < day]
    return names


def _name(table: str, file: DataFile) -> str:
    return f"{table}/{file.partition}/{file.run_key}"


def _rows(
    profile: Profile, wanted: TrainingSet, samples: Pinned, pins: Sequence[Pinned], todo: Mapping[date, str]
) -> pa.Table:
    contract = load_contract(wanted.samples)
    asked = read_rows([file.path for file in samples.files if file.partition in todo], contract)
    if not asked.num_rows:
        return read_rows((), load_contract(wanted.table))
    features = join_features(profile, wanted.service, pins, asked)
    return attach(asked, features, load_contract(wanted.table), entity_keys(wanted.service))


def _stage(
    lake: Lake, contract: Contract, rows: pa.Table, todo: Mapping[date, str], attempt: Attempt, inputs: tuple[str, ...]
) -> list[PartitionWrite]:
    """Check the rows, which are ordered by partition, and write one file per partition that has any."""
    verdicts = check(lake.profile, rows, contract)
    days = rows[contract.partition].to_numpy()
    writes = []
    for day, key in todo.items():
        start, stop = (int(days.searchsorted(np.datetime64(day), side)) for side in ("left", "right"))
        files: tuple[str, ...] = ()
        if stop > start:
            path = lake.staging(contract.table, key, day, attempt.token) / "part-0.parquet"
            pq.write_table(rows.slice(start, stop - start), path)
            files = (str(path),)
        count = stop - start
        writes.append(PartitionWrite(day, key, files, count, count, inputs=inputs, rules=verdicts.get(day, ())))
    return writes
