"""The validity card of the market: where its log is like the logs of real shops, and where it is not.

What is held against what, and how wide, stands in validity.yaml; the figures of the real logs in real_logs.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from common.config import parse_config, read_yaml
from common.folders import make_folder
from infra.errors import DataError
from spark_jobs.market.log import logged
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.simulate import BLOCK
from spark_jobs.market.takes import SHARES, STATISTICS, Takes, measured
from spark_jobs.market.visits import World

_FOLDER = Path(__file__).parent
Verdict = Literal["inside", "outside", "no reference", "not measured", "reference"]
MARKET, SHOP = "market", "shop"
AS_DELIVERED = "as delivered"  # origin of a shop's own log: what the installation says of its events
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("statistic", "source", "origin")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        *((name, pa.string()) for name in ("verdict", "parameters_hash")),
    ]
)
_TAKES = ["user_id", "item_id", "event_time"]


@dataclass(frozen=True)
class Kind:
    """Of logs: the `event` of the market that is its take, in the `least`-core. See validity.yaml."""

    event: str
    least: int
    own: str
    setting: str | None
    days: int


@dataclass(frozen=True)
class Width:
    """See validity.yaml."""

    factor: float
    room: float
    kinds: Mapping[str, Kind]

    @classmethod
    def read(cls, file: Path = _FOLDER / "validity.yaml") -> Width:
        """From its file."""
        return parse_config(cls, read_yaml(file), str(file))

    def limits(self, statistic: str, values: Sequence[float]) -> tuple[float, float] | None:
        """Lowest and highest that is like the real `values`; None without any."""
        if not values:
            return None
        room = self.room if statistic in SHARES else 0.0
        low, high = min(values) / self.factor - room, max(values) * self.factor + room
        return (max(0.0, low), min(1.0, high)) if statistic in SHARES else (low, high)


@dataclass(frozen=True)
class RealLog:
    """A log that was measured: `values` by statistic, None where its copy does not tell. `origin` is `simulated` where
    its publisher says so."""

    kind: str
    origin: Literal["real", "simulated"]
    name: str
    licence: str
    note: str
    rows: int
    values: Mapping[str, float | None]


def read_real_logs(file: Path = _FOLDER / "real_logs.yaml") -> dict[str, RealLog]:
    """By name."""
    return {name: parse_config(RealLog, values, f"{file}: {name}") for name, values in read_yaml(file).items()}


@dataclass(frozen=True)
class Row:
    """A line of the card: a statistic of a log; of market and shop with the limits and whether it is within them."""

    statistic: str
    source: str
    origin: str
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    parameters_hash: str | None


def read_takes(folder: Path, kind: Kind) -> Takes:
    """The takes of that kind in a log that the market has written.

    Raises:
        DataError: the folder holds no log, or the log no such take.
    """
    files = sorted((folder / "events").glob("*.parquet"))
    if not files:
        raise DataError(
            "There is no log of a market.",
            where=str(folder),
            why="It has no events/*.parquet.",
            do="Make one: `python -m spark_jobs market simulate --folder FOLDER`.",
        )
    own = [("event_type", "==", kind.event)]
    parts = [pq.read_table(file, columns=_TAKES, filters=own) for file in files]
    return Takes.of(pa.concat_tables(parts).to_pandas(), kind.least)


def lived_takes(world: World, people: int, kind: Kind) -> pd.DataFrame:
    """What so many people of a market took: user_id, item_id and event_time, uncut."""
    parts = []
    for start in range(0, people, BLOCK):
        log = logged(world, np.arange(start, min(people, start + BLOCK)))
        events = pa.Table.from_batches(log.batches["events"])
        parts.append(events.filter(pc.equal(events["event_type"], kind.event)).select(_TAKES))
    found = pa.concat_tables(parts).to_pandas()
    return found.assign(event_time=pd.to_datetime(found["event_time"], unit="us", utc=True))


def kind_of(events: DataFrame) -> tuple[str, int] | None:
    """Of which kind a shop's log is, that of which it has the most, and how many takes it has; None: of none."""
    counts = {row["event_type"]: row["count"] for row in events.groupBy("event_type").count().collect()}
    takes = {name: counts.get(kind.own, 0) for name, kind in Width.read().kinds.items()}
    name = max(takes, key=lambda one: takes[one])
    return (name, takes[name]) if takes[name] else None


def market_of(kind: str | None) -> Parameters:
    """The market that was tuned on logs of a kind; without one what stands above all settings."""
    return Parameters.read(setting=Width.read().kinds[kind].setting if kind else None)


def markets() -> dict[str, str]:
    """The hash of each market that `market_of` may answer with, by its kind."""
    return {kind: market_of(kind).hash for kind in Width.read().kinds}


def logs_of(kind: str) -> dict[str, RealLog]:
    """The real logs of a kind, by name."""
    return {name: log for name, log in read_real_logs().items() if log.kind == kind}


def card(
    market: Mapping[str, float | None],
    real: Mapping[str, RealLog],
    width: Width,
    parameters_hash: str,
    shop: Mapping[str, float | None] | None = None,
) -> list[Row]:
    """The market beside the `real` logs of its kind, statistic by statistic; and beside a `shop`'s own log, which does
    not move the limits."""
    rows = []
    for statistic in STATISTICS:
        known = {name: log.values.get(statistic) for name, log in real.items()}
        value, limits = market[statistic], width.limits(statistic, [one for one in known.values() if one is not None])
        verdict = _verdict(value, limits)
        low, high = limits or (None, None)
        rows.append(Row(statistic, MARKET, "simulated", value, low, high, verdict, parameters_hash))
        if shop is not None:
            own = shop[statistic]
            rows.append(Row(statistic, SHOP, AS_DELIVERED, own, low, high, _verdict(own, limits), None))
        rows += [
            Row(statistic, name, real[name].origin, one, None, None, "reference", None) for name, one in known.items()
        ]
    return rows


def _verdict(value: float | None, limits: tuple[float, float] | None) -> Verdict:
    if limits is None:
        return "no reference"
    if value is None:
        return "not measured"
    return "inside" if limits[0] <= value <= limits[1] else "outside"


def held(folder: Path, kind: str, parameters_hash: str, width: Width) -> tuple[list[Row], int]:
    """The card of a log that the market has written, and its number of takes."""
    takes = read_takes(folder, width.kinds[kind])
    return card(measured(takes), logs_of(kind), width, parameters_hash), len(takes)


def markdown(rows: Sequence[Row]) -> str:
    """The card for reading."""
    sources = list(dict.fromkeys(row.source for row in rows if row.source != MARKET))
    origin = {row.source: row.origin for row in rows}
    names = ["statistic", MARKET, *(f"{name} ({origin[name]})" for name in sources), "low", "high", "verdict"]
    lines = [names, ["---"] * len(names)]
    value = {(row.statistic, row.source): row.value for row in rows}
    for row in rows:
        if row.source == MARKET:
            figures = [row.value, *(value[row.statistic, name] for name in sources), row.low, row.high]
            lines.append([row.statistic, *("" if one is None else f"{one:.4g}" for one in figures), row.verdict])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_card(rows: Sequence[Row], folder: Path) -> None:
    """`validity.parquet` and `validity.md`."""
    make_folder(folder)
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA), folder / "validity.parquet")
    (folder / "validity.md").write_text(markdown(rows))
