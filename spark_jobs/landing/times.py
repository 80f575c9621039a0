"""A landed time as a moment: ISO 8601, or a number since the epoch whose size tells its unit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from spark_jobs.landing.text import stripped

_ISO = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[ T](?P<clock>\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)"
    r"(?: ?(?:(?:Z|UTC|GMT)|(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>[0-5]\d)?))?)?",
    re.ASCII | re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{9,20}(?:\.\d*)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MICROSECOND
# Below the first bound a number is in seconds, below the next in milliseconds, then microseconds, else nanoseconds.
_UNITS = ((Decimal("1e11"), Decimal(10**6)), (Decimal("1e14"), Decimal(1000)), (Decimal("1e17"), Decimal(1)))
_NANOSECOND = Decimal("0.001")
_LONGEST_OFFSET = 18 * 60


@lru_cache(maxsize=1 << 16)
def moment(text: str | None) -> int | None:
    """Microseconds since the epoch (UTC where no zone is named); None for what is no time.

    Of zones only `Z`, `UTC`, `GMT` and offsets such as `+01:00` or `-0500` are read: letters such as BST or IST mean
    different places to different people. A number in E-notation has lost digits and is no time.
    """
    value = stripped(text)
    if match := _ISO.fullmatch(value):
        return _iso(match)
    if not _NUMBER.fullmatch(value):
        return None
    number = Decimal(value)
    unit = next((unit for bound, unit in _UNITS if number < bound), _NANOSECOND)
    micros = int(number * unit)
    return micros if micros <= _LAST else None


def _iso(match: re.Match[str]) -> int | None:
    offset = int(match["hours"] or 0) * 60 + int(match["minutes"] or 0)
    if offset > _LONGEST_OFFSET:
        return None
    try:
        local = datetime.fromisoformat(f"{match['day']}T{match['clock'] or '00:00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    east = -1 if match["sign"] == "-" else 1
    return (local - _EPOCH) // _MICROSECOND - east * offset * 60 * 10**6
