"""Arguments that the command lines of several rooms share: a day, a time, a range of days."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, date, datetime

from infra.errors import DataError


def day(text: str) -> date:
    """A day such as 2018-01-05; argparse reports any other text."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a day; write it as 2018-01-05") from error


def moment(text: str) -> datetime:
    """An aware time such as 2018-01-05T10:00:00Z; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a time; write it as 2018-01-05T10:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def add_range(parser: ArgumentParser, *, required: bool = True) -> ArgumentParser:
    """Add `--partition` (the last day) and `--from` (the first; default: the same day)."""
    parser.add_argument("--partition", type=day, required=required, metavar="DAY", help="the (last) day")
    parser.add_argument("--from", dest="first", type=day, metavar="DAY", help="the first day of a range")
    return parser


def given_range(arguments: Namespace) -> tuple[date, date]:
    """The first and the last day that were given.

    Raises:
        DataError: the range runs backwards.
    """
    return ordered(arguments.first or arguments.partition, arguments.partition)


def ordered(first: date, last: date) -> tuple[date, date]:
    """The range as it is.

    Raises:
        DataError: it runs backwards.
    """
    if first > last:
        raise DataError(f"The range runs backwards: from {first} to {last}.", do="Give a --from that is not later.")
    return first, last
