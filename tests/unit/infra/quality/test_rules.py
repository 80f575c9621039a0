"""Why a partition may not be published, in words."""

from __future__ import annotations

from datetime import date

import pytest

from infra.contracts import load_contract
from infra.partitions import RuleResult
from infra.quality.rules import partition_row, why_stopped

DAY = date(2024, 3, 1)
REFUSED = RuleResult("price_not_negative", "fail", 2, "failed")


@pytest.mark.parametrize(
    ("aside", "said"),
    [(12, "2 of 19 rows are bad beside 12 that are set aside (10.5%, at most 10.0%)"), (0, "")],
    ids=["some rows are set aside", "all 31 rows count"],
)
def test_rows_that_are_set_aside_are_neither_bad_nor_counted_as_good(aside: int, said: str) -> None:
    row = partition_row(DAY, 31, 29 - aside, {REFUSED.rule: 2}, aside)
    why = why_stopped(load_contract("events"), row, [REFUSED])
    assert why == (f"{said}, most often by rule price_not_negative (2)" if said else "")
