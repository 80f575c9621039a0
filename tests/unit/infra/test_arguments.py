from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, date, datetime

import pytest

from infra.arguments import add_range, given_range, moment
from infra.errors import DataError


def _given(*argv: str) -> tuple[date, date]:
    return given_range(add_range(ArgumentParser()).parse_args(argv))


def test_a_range_without_a_first_day_is_its_last_day() -> None:
    assert _given("--partition", "2018-01-05") == (date(2018, 1, 5), date(2018, 1, 5))
    assert _given("--partition", "2018-01-05", "--from", "2018-01-01") == (date(2018, 1, 1), date(2018, 1, 5))


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(DataError, match="backwards: from 2018-02-01 to 2018-01-05"):
        _given("--partition", "2018-01-05", "--from", "2018-02-01")


def test_a_day_that_is_none_is_named_with_the_form_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _given("--partition", "5.1.2018")
    assert "'5.1.2018' is not a day; write it as 2018-01-05" in capsys.readouterr().err


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2018-01-05T10:00") == datetime(2018, 1, 5, 10, tzinfo=UTC)
    assert moment("2018-01-05T10:00:00+02:00") == datetime(2018, 1, 5, 8, tzinfo=UTC)
