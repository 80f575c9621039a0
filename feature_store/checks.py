"""What a contract says of rows that were joined here: nothing of level `fail` may fail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from infra.contracts import Contract
from infra.errors import DataError
from infra.partitions import RuleResult
from infra.profile import Profile
from infra.quality.rows import check_table


def check(profile: Profile, rows: pa.Table, contract: Contract) -> Mapping[date, tuple[RuleResult, ...]]:
    """The results of all rules and expectations, for each partition with rows; Data Docs get a page.

    Raises:
        DataError: a row is refused or an expectation not met. Rows that were joined, not landed, are wrong only if the
            join is: nothing goes on.
    """
    checked = check_table(profile, contract, rows)
    for day, why in checked.stopped.items():
        raise DataError(
            f"{contract.table}: {why}.",
            where=f"partition {day}",
            why="The join gave a sample what it may not have, or gave it twice.",
            do="Look at `available_at`, `last_event_time` and the keys of the tables that were joined.",
        )
    return checked.results
