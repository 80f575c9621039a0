"""Table contracts: one YAML per table is the only source of its schema and its rules.

The files follow the Open Data Contract Standard v3 where it fits. The Spark schema, the Iceberg schema, the row rules,
the Great Expectations suite and the dbt sources are all derived from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any, Literal

import pyarrow as pa

from common.config import read_yaml
from infra.errors import DataError
from infra.profile import CHECKOUT

CONTRACTS = CHECKOUT / "spark_jobs" / "contracts"
UNDATED = date(1970, 1, 1)

Level = Literal["fail", "drop", "warn"]
_SEVERITY: dict[str, Level] = {"error": "fail", "warning": "warn"}


@dataclass(frozen=True)
class _Type:
    arrow: pa.DataType
    spark: str
    duckdb: str


_TYPES: dict[str, _Type] = {
    "string": _Type(pa.string(), "STRING", "VARCHAR"),
    "long": _Type(pa.int64(), "BIGINT", "BIGINT"),
    "integer": _Type(pa.int32(), "INT", "INTEGER"),
    "double": _Type(pa.float64(), "DOUBLE", "DOUBLE"),
    "boolean": _Type(pa.bool_(), "BOOLEAN", "BOOLEAN"),
    "date": _Type(pa.date32(), "DATE", "DATE"),
    "timestamp": _Type(pa.timestamp("us", tz="UTC"), "TIMESTAMP", "TIMESTAMPTZ"),
    "array<string>": _Type(pa.list_(pa.string()), "ARRAY<STRING>", "VARCHAR[]"),
    "array<long>": _Type(pa.list_(pa.int64()), "ARRAY<BIGINT>", "BIGINT[]"),
    "array<integer>": _Type(pa.list_(pa.int32()), "ARRAY<INT>", "INTEGER[]"),
    "array<double>": _Type(pa.list_(pa.float64()), "ARRAY<DOUBLE>", "DOUBLE[]"),
    "array<date>": _Type(pa.list_(pa.date32()), "ARRAY<DATE>", "DATE[]"),
}


class ContractError(DataError):
    """A contract file does not say what a contract must say."""


@dataclass(frozen=True)
class Column:
    """One column; `type` is a key of the type table above (ODCS `physicalType`)."""

    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class RowRule:
    """A Spark SQL expression that is true for a good row.

    `fail` sends the row to quarantine; `drop` does too, but nobody is to mend anything, so it is no bad row; `warn`
    only counts it. A row that breaks a rule which stands `alone` is not counted by the others.
    """

    name: str
    expression: str
    level: Level
    description: str
    alone: bool = False


@dataclass(frozen=True)
class Expectation:
    """A Great Expectations expectation over the partition's aggregates (one row a partition)."""

    type: str
    kwargs: dict[str, Any]
    level: Level
    description: str


@dataclass(frozen=True)
class Contract:
    """Everything that is promised about one table. Of one that `grows`, rows of a partition stay as others join them:
    who publishes some adds those whose key is not there."""

    table: str
    description: str
    grain: str
    owner: str
    origin: Literal["real", "simulated"]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: str
    row_rules: tuple[RowRule, ...]
    expectations: tuple[Expectation, ...]
    max_bad_share: float
    retention_days: int | None
    grows: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)


def arrow_schema(contract: Contract) -> pa.Schema:
    """The Arrow schema; PyIceberg derives the table's schema from it."""
    return pa.schema([pa.field(c.name, _TYPES[c.type].arrow, nullable=not c.required) for c in contract.columns])


def spark_ddl(contract: Contract) -> str:
    """The Spark schema as a DDL string for `spark.read.schema`."""
    return ", ".join(f"`{c.name}` {_TYPES[c.type].spark}" for c in contract.columns)


def duckdb_types(contract: Contract) -> dict[str, str]:
    """Column name to DuckDB type."""
    return {c.name: _TYPES[c.type].duckdb for c in contract.columns}


def all_contracts() -> dict[str, Contract]:
    """Every contract, by table name."""
    return {path.stem: load_contract(path.stem) for path in sorted(CONTRACTS.glob("*.yaml"))}


@cache
def load_contract(table: str) -> Contract:
    """The contract of `table`.

    Raises:
        ContractError: there is none, or it lacks a field.
        DataError: it is no YAML.
    """
    path = CONTRACTS / f"{table}.yaml"
    if not path.is_file():
        raise ContractError(f"Table {table!r} has no contract.", where=str(CONTRACTS), do=f"Write {path.name}.")
    return parse_contract(read_yaml(path), str(path))


def parse_contract(raw: dict[str, Any], where: str) -> Contract:
    """Read one ODCS v3 document (`kind: DataContract`, one schema object).

    Raises:
        ContractError: a field is missing or a type unknown.
    """
    try:
        return _parse(raw)
    except KeyError as error:
        raise ContractError(
            f"The contract lacks or misnames {error}.", where=where, do="Compare it with another contract."
        ) from error


def _parse(raw: dict[str, Any]) -> Contract:
    (table,) = raw["schema"]
    properties: list[dict[str, Any]] = table["properties"]
    custom = {entry["property"]: entry["value"] for entry in raw["customProperties"]}
    quality: list[dict[str, Any]] = table.get("quality", [])
    columns = []
    for p in properties:
        name, kind = p["name"], p["physicalType"]
        if kind not in _TYPES:
            raise KeyError(f"physicalType {kind!r} (one of {', '.join(_TYPES)})")
        columns.append(Column(name, kind, bool(p.get("required", False)), p["description"]))
    (partition,) = [p["name"] for p in properties if p.get("partitioned")]
    return Contract(
        table=table["name"],
        description=raw["description"]["purpose"],
        grain=table["dataGranularityDescription"],
        owner=raw["team"]["name"],
        origin=custom["origin"],
        columns=tuple(columns),
        key=tuple(p["name"] for p in properties if p.get("primaryKey")),
        partition=partition,
        row_rules=tuple(
            RowRule(q["name"], q["implementation"], _SEVERITY[q["severity"]], q["description"])
            for q in quality
            if q["engine"] == "row"
        ),
        expectations=tuple(_expectation(q) for q in quality if q["engine"] == "greatExpectations"),
        max_bad_share=float(custom["maxBadShare"]),
        retention_days=custom.get("retentionDays"),
        grows=bool(custom.get("grows", False)),
    )


def _expectation(quality: dict[str, Any]) -> Expectation:
    body = quality["implementation"]
    level = _SEVERITY[quality["severity"]]
    return Expectation(body["type"], dict(body["kwargs"]), level, quality["description"])


_QUARANTINE_COLUMNS = (
    Column("run_key", "string", True, "Run that refused the row."),
    Column("rule", "string", True, "Rule that the row broke."),
    Column("key_json", "string", True, "The row's key columns as JSON."),
    Column("row_json", "string", True, "The whole row as JSON."),
    Column("source_file", "string", False, "Landing file of the row, where it came from one."),
    Column("source_row", "long", False, "Row number in that file, from 1."),
)


def quarantine_contract(contract: Contract) -> Contract:
    """The contract of the quarantine of a table: `<table>_quarantine`, with the same partition column."""
    partition = next(column for column in contract.columns if column.name == contract.partition)
    return replace(
        contract,
        table=f"{contract.table}_quarantine",
        description=f"Rows that {contract.table} refused, with the rule they broke.",
        grain="One row per refused row and the rule it broke.",
        columns=(partition, *_QUARANTINE_COLUMNS),
        key=(),
        row_rules=(),
        expectations=(),
    )
