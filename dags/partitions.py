"""Which days a run is for. One helper resolves it, from the run's key and from ALL events that triggered it.

A partition key is a day (`2018-01-05`), the LAST of the run's range. The first day comes from the parameter `from`
of a run that a person triggered, else from the `from` that each triggering asset event carries; without either it is
the last day itself. Airflow merges events that wait for the same run, so the range covers every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from infra.errors import DataError

KEY_FORMAT = "%Y-%m-%d"
_CONF = ("from",)  # what a person may say beside the key


class Event(Protocol):
    """What this module reads of an Airflow asset event."""

    @property
    def partition_key(self) -> str | None: ...  # noqa: D102
    @property
    def extra(self) -> Mapping[str, Any] | None: ...  # noqa: D102


@dataclass(frozen=True)
class PartitionRange:
    """Days from `first` to `last`, both inclusive."""

    first: date
    last: date

    def extra(self) -> dict[str, str]:
        """What an asset event of this range carries to the runs that it triggers."""
        return {"from": self.first.isoformat(), "to": self.last.isoformat()}


def resolve(key: str | None, start: str | None, events: Iterable[Event]) -> PartitionRange:
    """The range of a run: `key` is its partition key, `start` its parameter `from`, `events` what triggered it.

    Raises:
        DataError: no day is known, a key is not a day, or the range runs backwards.
    """
    triggers = list(events)
    lasts = [_day(text) for text in (key, *(event.partition_key for event in triggers)) if text]
    if not lasts:
        raise DataError("The run has no partition.", do='Trigger it with a partition key, such as "2018-01-05".')
    starts = [start, *((event.extra or {}).get("from") for event in triggers)]
    first, last = min([*(_day(text) for text in starts if text), *lasts]), max(lasts)
    if start and _day(start) > last:
        raise DataError(f"The range runs backwards: from {start} to {last}.", do="Give a `from` before the key.")
    return PartitionRange(first, last)


def days(
    partition_key: str | None, params: Mapping[str, Any], triggering_asset_events: Mapping[Any, Iterable[Event]]
) -> PartitionRange:
    """The range of a run, from the three variables of a task's context that hold it.

    Raises:
        DataError: as `resolve`, and as `require_known`.
    """
    require_known(params)
    events = [event for group in triggering_asset_events.values() for event in group]
    return resolve(partition_key, params.get("from"), events)


def require_known(params: Mapping[str, Any]) -> None:
    """Refuse what nobody would read: Airflow takes every key of `conf` for a parameter.

    Raises:
        DataError: a key that no DAG knows, such as a misspelt one.
    """
    if unknown := sorted(params.keys() - set(_CONF)):
        known = ", ".join(map(repr, _CONF))
        raise DataError(f"The run's conf has an unknown key: {', '.join(unknown)}.", do=f"The keys are: {known}.")


def _day(text: str) -> date:
    """Only as keys are written: one day under two keys would be two runs."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise DataError(f"{text!r} is not a day.", do="Write days as 2018-01-05.")
    return day
