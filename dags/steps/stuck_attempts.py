"""Lists attempts that neither committed nor were overtaken: a task died in the middle, or its data was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import and_, exists, select

from infra.database import open_database, transaction
from infra.errors import EXIT_DATA, exit_with_reason
from infra.ledger.schema import METADATA, attempt_partitions, attempts, commits
from infra.profile import Profile, load_profile

Stuck = tuple[int, str, date, datetime]


def main() -> int:
    """Print them; 65 if there are any."""
    found = stuck_attempts(load_profile(), datetime.now(UTC) - timedelta(hours=6))
    for token, asset, day, started in found:
        sys.stdout.write(f"attempt {token} on {asset} {day}, started {started:%Y-%m-%d %H:%M} UTC, never committed\n")
    return EXIT_DATA if found else 0


def stuck_attempts(profile: Profile, before: datetime) -> Sequence[Stuck]:
    """The partitions whose newest attempt started before `before` and left no commit of its own or later."""
    newer, newer_days = attempts.alias(), attempt_partitions.alias()
    same_day = and_(newer.c.asset == attempts.c.asset, newer_days.c.partition == attempt_partitions.c.partition)
    overtaken = exists().where(newer.c.token == newer_days.c.token, newer.c.token > attempts.c.token, same_day)
    mine = and_(commits.c.asset == attempts.c.asset, commits.c.partition == attempt_partitions.c.partition)
    committed = exists().where(mine, commits.c.token >= attempts.c.token)
    query = (
        select(attempts.c.token, attempts.c.asset, attempt_partitions.c.partition, attempts.c.started)
        .join(attempt_partitions, attempt_partitions.c.token == attempts.c.token)
        .where(attempts.c.started < before, ~overtaken, ~committed)
        .order_by(attempts.c.token)
    )
    with transaction(open_database(profile.database_uri, METADATA)) as connection:
        return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


if __name__ == "__main__":
    exit_with_reason(main)
