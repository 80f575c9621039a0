"""What a gate is told of the data behind a model, from the ledger alone."""

from __future__ import annotations

from datetime import date

import pytest

from infra.ledger import Ledger
from infra.partitions import PartitionWrite, RuleResult
from infra.profile import Profile
from registry.data_quality import check_data

DAY = date(2018, 1, 5)


@pytest.fixture
def ledger(profile: Profile) -> Ledger:
    return Ledger(profile)


def commit(ledger: Ledger, asset: str, *inputs: str, rows_in: int = 9, rows_out: int = 9, rule: str = "ok") -> None:
    rules = (RuleResult("price_positive", "fail", 0, rule),)  # type: ignore[arg-type]
    write = PartitionWrite(DAY, f"key of {asset}", (), rows_in, rows_out, inputs=inputs, rules=rules)
    ledger.record(ledger.open_attempt(asset, [DAY]), [write], 1)


def test_data_that_adds_up_is_green_and_counts_every_ancestor(ledger: Ledger) -> None:
    commit(ledger, "events", "office.csv")
    commit(ledger, "histories", "events@1")
    commit(ledger, "samples", "events@1", "histories@1")
    found = check_data(ledger, ["samples"])
    assert (found.problems, found.partitions) == ((), 3)


def test_rows_lost_far_upstream_are_red(ledger: Ledger) -> None:
    commit(ledger, "events", "office.csv", rows_out=6)
    commit(ledger, "histories", "events@1")
    commit(ledger, "samples", "histories@1")
    assert check_data(ledger, ["samples"]).problems == (
        "events 2018-01-05: 3 of 9 rows are neither out nor in quarantine",
    )


def test_a_rule_that_raised_is_red_and_one_that_found_bad_rows_is_not(ledger: Ledger) -> None:
    commit(ledger, "events", rule="failed")
    commit(ledger, "items", rule="error")
    assert check_data(ledger, ["events"]).problems == ()
    assert check_data(ledger, ["items"]).problems == ("rule price_positive of items raised on 2018-01-05",)


def test_data_that_the_model_was_not_made_of_does_not_matter(ledger: Ledger) -> None:
    commit(ledger, "events")
    commit(ledger, "queries", rows_out=0)
    assert check_data(ledger, ["events"]).problems == ()


def test_no_known_data_is_not_good_data(ledger: Ledger) -> None:
    assert check_data(ledger, []).problems == ("the ledger knows of no data behind this version",)


def test_a_flood_of_problems_is_cut_to_a_page(ledger: Ledger) -> None:
    names = [f"t{n}" for n in range(9)]
    for name in names:
        commit(ledger, name, rows_out=0)
    problems = check_data(ledger, names).problems
    assert (len(problems), problems[-1]) == (6, "and 4 more")
