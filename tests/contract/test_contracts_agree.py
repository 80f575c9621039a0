"""One contract, one truth: every schema and rule that is derived from a contract says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from infra.contracts import UNDATED, Contract, RowRule, all_contracts, arrow_schema, quarantine_contract, spark_ddl
from infra.lake import iceberg_schema
from infra.profile import Profile
from infra.quality.checkpoint import expectations_of, name_of
from infra.quality.rows import check_table
from infra.quality.rules import rules_of
from spark_jobs.__main__ import BUILT
from spark_jobs.engine.row_checks import aggregate, check_rows, empty_row
from spark_jobs.ingest import LANDED
from spark_jobs.landing.tables import TABLES

CONTRACTS = all_contracts()


@pytest.fixture(params=sorted(CONTRACTS))
def contract(request: pytest.FixtureRequest) -> Contract:
    return CONTRACTS[request.param]


def names_and_types(schema: object) -> list[tuple[str, str]]:
    """Large and small strings and lists are the same to a reader."""
    return [(field.name, str(field.type).replace("large_", "").replace("element: ", "item: ")) for field in schema]  # type: ignore[attr-defined]


def test_the_spark_schema_is_the_arrow_schema(contract: Contract, spark: SparkSession) -> None:
    struct = spark.createDataFrame([], spark_ddl(contract)).schema
    assert names_and_types(to_arrow_schema(struct, timezone="UTC")) == names_and_types(arrow_schema(contract))


def test_the_iceberg_schema_is_the_arrow_schema(contract: Contract) -> None:
    found = schema_to_pyarrow(iceberg_schema(contract), include_field_ids=False)
    assert names_and_types(found) == names_and_types(arrow_schema(contract))


def test_every_row_rule_compiles_to_a_truth_value_in_spark(contract: Contract, spark: SparkSession) -> None:
    frame = spark.createDataFrame([], spark_ddl(contract))
    for rule in rules_of(contract):
        assert frame.select(F.expr(rule.expression)).schema[0].dataType.typeName() == "boolean", rule.name


# Built by Spark, or landed: the others are checked in DuckDB.
ELSEWHERE = sorted(set(CONTRACTS) - {*BUILT, *LANDED})


@pytest.mark.parametrize("table", ELSEWHERE)
def test_the_rules_of_a_table_that_spark_does_not_build_are_read_by_duckdb_too(table: str, profile: Profile) -> None:
    contract = replace(CONTRACTS[table], expectations=())
    checked = check_table(profile, contract, arrow_schema(contract).empty_table())
    assert (len(checked.good), checked.results, checked.stopped) == (0, {}, {})


def test_a_rule_on_a_column_that_is_not_there_is_found(spark: SparkSession) -> None:
    contract = CONTRACTS["events"]
    wrong = RowRule("wrong", "colour = 'red'", "fail", "")
    assert set(check_rows(spark.createDataFrame([], spark_ddl(contract)), contract, [wrong]).broken) == {"wrong"}


def test_every_expectation_is_known_and_asks_for_an_aggregate_that_is_counted(
    contract: Contract, spark: SparkSession
) -> None:
    frame = spark.createDataFrame([], spark_ddl(contract))
    checked = check_rows(frame, contract, rules_of(contract))
    assert aggregate(checked, contract) == []
    counted = set(empty_row(UNDATED, checked, contract))
    suite = expectations_of(contract)
    assert len(suite) == len(contract.expectations)
    for expectation in contract.expectations:
        assert expectation.kwargs["column"] in counted


def test_the_rules_of_a_table_have_names_that_can_be_told_apart_in_a_list_with_commas(contract: Contract) -> None:
    names = [*(rule.name for rule in rules_of(contract)), *map(name_of, contract.expectations)]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "," in name]


def test_the_quarantine_has_the_partition_column_of_its_table(contract: Contract) -> None:
    quarantine = quarantine_contract(contract)
    assert quarantine.partition == contract.partition
    assert arrow_schema(quarantine).field(0).equals(arrow_schema(contract).field(contract.partition))


def test_the_key_and_the_partition_are_required_columns(contract: Contract) -> None:
    required = {column.name for column in contract.columns if column.required}
    assert {contract.partition, *contract.key} <= required


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_landed_table_is_dated_and_filled_by_columns_of_its_contract(table: str) -> None:
    landed, names = TABLES[table], set(CONTRACTS[table].names)
    assert {landed.time, *landed.defaults} <= names
    assert set(landed.needed) <= set(landed.accepted) <= names
