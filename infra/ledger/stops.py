"""Days whose newest build is not in their table: which, why, and what was judged, so that it is not judged twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from sqlalchemy import Engine, delete, insert, select

from infra.database import transaction
from infra.ledger.schema import stopped_days


@dataclass(frozen=True)
class Stop:
    """A day that was not published, or that a run passed over; `run_key` is that of the build which was refused.

    `judge` stands for the rules that it was judged by, other rules may say otherwise; empty where it was not judged.
    `inputs` name the landing files that it was to be made of.
    """

    day: date
    run_key: str
    why: str
    judge: str = ""
    inputs: tuple[str, ...] = ()
    recorded: datetime = field(default_factory=lambda: datetime.now(UTC))


class Stops:
    """The ledger's memory of days that were stopped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def replace(self, asset: str, asked: Collection[date], stops: Iterable[Stop]) -> None:
        """Of the `asked` days these are stopped and no others; what is known of other days stays."""
        rows = [
            {
                "asset": asset,
                "partition": stop.day,
                "run_key": stop.run_key,
                "judge": stop.judge,
                "inputs": list(stop.inputs),
                "why": stop.why,
                "recorded": stop.recorded,
            }
            for stop in stops
        ]
        with transaction(self._engine) as connection:
            known = connection.scalars(select(stopped_days.c.partition).where(stopped_days.c.asset == asset)).all()
            for day in sorted(set(known) & set(asked)):
                connection.execute(
                    delete(stopped_days).where(stopped_days.c.asset == asset, stopped_days.c.partition == day)
                )
            if rows:
                connection.execute(insert(stopped_days), rows)

    def of(self, asset: str) -> dict[date, Stop]:
        """What is known of an asset, by day."""
        query = select(stopped_days).where(stopped_days.c.asset == asset).order_by(stopped_days.c.partition)
        with transaction(self._engine) as connection:
            return {
                row.partition: Stop(row.partition, row.run_key, row.why, row.judge, tuple(row.inputs), row.recorded)
                for row in connection.execute(query)
            }

    def assets(self) -> list[str]:
        """The assets of which a day is stopped."""
        with transaction(self._engine) as connection:
            query = select(stopped_days.c.asset).distinct().order_by(stopped_days.c.asset)
            return list(connection.scalars(query))
