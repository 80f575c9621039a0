"""A landed time is one moment, or none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.landing.times import moment

TEN = 1709287200 * 10**6


@pytest.mark.parametrize(
    "text",
    [
        *("2024-03-01T10:00:00Z", "2024-03-01 10:00", "2024-03-01T10:00:00.000000", "2024-03-01 10:00:00 UTC"),
        *("2024-03-01 10:00:00 GMT", "2024-03-01T11:00:00+01:00", "2024-03-01 05:00:00 -0500", "2024-03-01t10:00:00z"),
        *("1709287200", "1709287200000", "1709287200000000", "1709287200000000000", "1709287200.0", "\xa01709287200 "),
    ],
)
def test_every_documented_shape_is_the_same_moment(text: str) -> None:
    assert moment(text) == TEN


@pytest.mark.parametrize(
    "text",
    [
        *("", None, "soon", "12:30", "01/03/2024", "2024-13-01", "2024-02-30", "2024-03-01T25:00:00Z", "2024-03-01T10"),
        *("2024-06-01 10:00:00 BST", "2024-06-01 10:00:00 IST", "2024-06-01 10:00:00 CEST", "2024-06-01 10:00 EST"),
        *(
            "2024-06-01 10:00:00 GMT+1",
            "2024-03-10 02:30:00 America/New_York",
            "2024-06-01 10:00:00+99:00",
            "2024-06-01 10:00:00+01:75",
        ),
        *("1.70929E+12", "1.7172360E9", "17092872001709287200170", "99999999", "0", "-1709287200", "NaN", "١٧٠٩٢٨٧٢٠٠"),
    ],
)
def test_what_could_mean_something_else_is_no_time(text: str | None) -> None:
    assert moment(text) is None


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_an_iso_time_with_any_offset_is_read_to_the_microsecond(local: datetime, minutes: int) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    expected = local.replace(tzinfo=UTC) - timedelta(minutes=minutes)
    found = moment(f"{local.isoformat()}{sign}{hours:02d}:{rest:02d}")
    assert found == (expected - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
