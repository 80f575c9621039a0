"""Rows that Python holds, checked by the contract of the nightly recommendations: each rule can refuse a row."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from infra.contracts import Expectation, RowRule, arrow_schema, load_contract, quarantine_contract
from infra.errors import DataError, TransientError
from infra.profile import Profile
from infra.quality import rows as module
from infra.quality.rows import CheckedRows, check_table, quarantine_rows

DAY = date(2018, 1, 5)
CONTRACT = load_contract("recommendations")
RULES_ALONE = dataclasses.replace(CONTRACT, expectations=())
SCHEMA = pa.schema([field.with_nullable(True) for field in arrow_schema(CONTRACT)])


def listed(user: str, places: int = 20, day: date = DAY) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"run_date": day, "user_id": user, "model_version": "1", "role": "champion"}
    common |= {"reasons": ["forward"], "reason_scores": [0.5]}
    return [{**common, "rank": n, "item_id": f"i{n}", "log_prob": -float(n)} for n in range(1, places + 1)]


def checked(profile: Profile, rows: list[dict[str, Any]]) -> CheckedRows:
    return check_table(profile, RULES_ALONE, pa.Table.from_pylist(rows, schema=SCHEMA))


def refused(found: CheckedRows) -> list[tuple[str, int, str]]:
    return [(row["user_id"], row["rank"], row["_rule"]) for row in found.refused.to_pylist()]


def test_sound_lists_pass_whole(profile: Profile) -> None:
    rows = [*listed("ann"), *listed("bob"), *listed("ann", 3, DAY + timedelta(days=1))]
    found = checked(profile, rows)
    assert found.good.to_pylist() == rows and not found.stopped and not len(found.refused)
    assert {(day, result.status) for day, results in found.results.items() for result in results} == {
        (DAY, "ok"),
        (DAY + timedelta(days=1), "ok"),
    }


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rank": 21}, "rank_in_list"),
        ({"item_id": " "}, "ids_not_empty"),
        ({"item_id": None}, "item_id_present"),
        ({"log_prob": math.nan}, "log_prob_finite"),
        ({"log_prob": -math.inf}, "log_prob_finite"),
        ({"log_prob": 0.5}, "log_prob_finite"),
        ({"log_prob": -18.5}, "log_prob_falls_with_rank"),
        ({"item_id": "i7"}, "item_once_per_list"),
        ({"role": "intern"}, "role_known"),
        ({"rank": 19, "log_prob": -19.0}, "unique_key"),
    ],
)
def test_a_last_place_that_breaks_a_rule_is_refused_alone(profile: Profile, change: dict[str, Any], rule: str) -> None:
    rows = [row for user in range(10) for row in listed(f"u{user}")]
    rows[59] |= change
    found = checked(profile, rows)
    assert refused(found) == [("u2", rows[59]["rank"], rule)]
    assert len(found.good) == 199 and not found.stopped
    broken = {result.rule: result.rows_failed for result in found.results[DAY] if result.status == "failed"}
    assert broken[rule] == 1


def test_nobody_is_warned_of_a_row_that_is_refused(profile: Profile) -> None:
    warned = dataclasses.replace(CONTRACT, row_rules=(*CONTRACT.row_rules, RowRule("short", "rank < 3", "warn", "")))
    rows = [*listed("ann", 4), {**listed("bob", 1)[0], "rank": 4, "role": "intern"}]
    found = check_table(profile, warned, pa.Table.from_pylist(rows, schema=SCHEMA))
    assert {r.rule: r.rows_failed for r in found.results[DAY]}["short"] == 2
    assert len(found.refused) == 1


def test_a_row_that_is_refused_anyway_makes_no_other_a_duplicate(profile: Profile) -> None:
    rows = [row for user in range(10) for row in listed(f"u{user}")]
    found = checked(profile, [{**rows[3], "item_id": "other", "role": "intern"}, *rows])
    assert refused(found) == [("u0", 4, "role_known")]


def test_a_partition_with_too_many_bad_rows_is_stopped_and_another_is_not(profile: Profile) -> None:
    found = checked(profile, [*listed("ann", 21), *listed("ann", 20, DAY + timedelta(days=1))])
    assert list(found.stopped) == [DAY]
    assert found.stopped[DAY].startswith("1 of 21 rows are bad (4.8%, at most 1.0%), most often by rule rank_in_list")


def test_a_refused_row_reaches_the_quarantine_whole(profile: Profile) -> None:
    rows = [*listed("ann", 2), {**listed("bob", 1)[0], "log_prob": math.nan}]
    table = quarantine_rows(CONTRACT, checked(profile, rows).refused, "key")
    assert table.schema == arrow_schema(quarantine_contract(CONTRACT))
    (line,) = table.to_pylist()
    assert (line["run_date"], line["run_key"], line["rule"]) == (DAY, "key", "log_prob_finite")
    assert json.loads(line["key_json"]) == {"user_id": "bob", "model_version": "1", "rank": 1}
    assert json.loads(line["row_json"]) == {**rows[2], "run_date": "2018-01-05", "log_prob": "nan"}


def test_expectations_are_asked_of_the_rows_that_go_on(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def remember(profile: Profile, contract: Any, aggregates: list[dict[str, Any]]) -> dict[date, tuple[()]]:
        asked.extend(aggregates)
        return {DAY: ()}

    monkeypatch.setattr(module, "validate_partitions", remember)
    columns = ("min_rank", "max_rank", "null_share_item_id")
    wanted = tuple(Expectation("e", {"column": name}, "fail", name) for name in columns)
    rows = [{**row, "rank": row["rank"] + 1} for row in listed("ann")]
    check_table(profile, dataclasses.replace(CONTRACT, expectations=wanted), pa.Table.from_pylist(rows, schema=SCHEMA))
    assert [(row["min_rank"], row["max_rank"], row["null_share_item_id"]) for row in asked] == [(2, 20, 0.0)]
    assert (asked[0]["rows_in"], asked[0]["rows_out"], asked[0]["bad_share"]) == (20, 19, 0.05)


def test_a_rule_that_cannot_be_evaluated_says_which_table_it_is_of(profile: Profile) -> None:
    wrong = dataclasses.replace(RULES_ALONE, row_rules=(RowRule("wrong", "colour = 'red'", "fail", ""),))
    with pytest.raises(DataError, match="A rule of 'recommendations' cannot be evaluated") as failure:
        check_table(profile, wrong, pa.Table.from_pylist(listed("ann"), schema=SCHEMA))
    assert "colour" in failure.value.why


def test_rows_beyond_its_memory_blame_no_rule(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", "100KB")
    with pytest.raises(TransientError, match="20 rows of 'recommendations' could not be checked") as failure:
        checked(profile, listed("ann"))
    assert "100KB" in failure.value.do
