"""What publish accepts: the contract's columns and types, one partition a file; tables grow by nullable columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import TableProperties

from infra.contracts import Column, all_contracts, arrow_schema
from infra.lake import SchemaError, iceberg_schema, publish
from tests.lake_kit import Day, Shop, day, good_rows, sales_contract


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "home")


def _publish_table(shop: Shop, change: Callable[[pa.Table], pa.Table], rows: tuple[int, ...] = (1, 2)) -> None:
    days = {day(0): Day(rows)}
    attempt = shop.open(days)
    writes = shop.stage(days, attempt)
    pq.write_table(change(good_rows(day(0), rows, shop.contract)), writes[0].files[0])
    publish(shop.lake, shop.ledger, "sales", writes, attempt)


def _retyped(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        number = table.schema.get_field_index(column)
        return table.set_column(number, column, table[column].cast(kind))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["amount"]), "lacks 'amount'"),
        (lambda t: t.rename_columns(["day", "store", "amount", "sold_at", "tags"]), "lacks 'shop'; has 'store'"),
        (_retyped("amount", pa.float64()), "'amount' is double, not int64"),
        (_retyped("sold_at", pa.timestamp("ns", tz="UTC")), "'sold_at' is timestamp"),
        (_retyped("sold_at", pa.timestamp("us")), "'sold_at' is timestamp"),
    ],
)
def test_a_file_that_does_not_fit_its_contract_is_refused(
    shop: Shop, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    with pytest.raises(SchemaError, match=said.replace("[", r"\[")):
        _publish_table(shop, change)
    assert shop.lake.snapshot("sales") is None


def test_large_strings_and_another_column_order_are_the_same_schema(shop: Shop) -> None:
    _publish_table(shop, lambda t: _retyped("shop", pa.large_string())(t).select([4, 3, 2, 1, 0]))
    assert shop.rows() == {day(0): (1, 2)}


def test_a_file_with_rows_of_two_days_or_of_none_is_refused(shop: Shop) -> None:
    two_days = pa.array([day(0), day(1)])
    no_day = pa.array([day(0), None])
    for days in (two_days, no_day):
        with pytest.raises(SchemaError, match="holds other rows"):
            _publish_table(shop, lambda t, days=days: t.set_column(0, "day", days))


def test_a_truncated_file_is_refused(shop: Shop) -> None:
    days = {day(0): Day((1,))}
    attempt = shop.open(days)
    writes = shop.stage(days, attempt)
    file = Path(writes[0].files[0])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SchemaError, match="cannot be read as Parquet"):
        publish(shop.lake, shop.ledger, "sales", writes, attempt)


def test_a_file_without_rows_is_left_out(shop: Shop) -> None:
    days = {day(0): Day((1,))}
    attempt = shop.open(days)
    (write,) = shop.stage(days, attempt)
    empty = Path(write.files[0]).with_name("part-1.parquet")
    pq.write_table(good_rows(day(0), (), shop.contract), empty)
    both = replace(write, files=(*write.files, str(empty)))
    publish(shop.lake, shop.ledger, "sales", [both], attempt)
    assert [file.rows for file in shop.lake.files("sales")] == [1]


def test_a_nullable_column_at_the_end_joins_the_table_and_old_rows_read_as_null(tmp_path: Path) -> None:
    Shop(tmp_path).publish({day(0): Day((1,))})
    grown = Shop(tmp_path, sales_contract({"name": "channel", "physicalType": "string"}))
    grown.publish({day(1): Day((2,))})
    loaded = grown.lake.load("sales")
    assert loaded is not None
    assert loaded.schema().column_names[-1] == "channel"
    rows = loaded.scan().to_arrow().sort_by("day")
    assert rows["amount"].to_pylist() == [1, 2]
    assert rows["channel"].to_pylist() == [None, "a"]


_COLUMNS = sales_contract().columns
_CHANNEL = replace(_COLUMNS[1], name="channel")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((_COLUMNS[0], replace(_COLUMNS[1], name="store"), *_COLUMNS[2:]), "changes column 2, 'shop'"),
        ((*_COLUMNS[:2], replace(_COLUMNS[2], type="double"), *_COLUMNS[3:]), "changes column 3, 'amount'"),
        ((*_COLUMNS[:4], replace(_COLUMNS[4], type="array<long>")), "changes column 5, 'tags'"),
        (_COLUMNS[:-1], "changes column 5, 'tags'"),
        ((*_COLUMNS, _CHANNEL), "appends the required column 'channel'"),
    ],
)
def test_a_contract_that_renames_retypes_drops_or_requires_is_refused(
    tmp_path: Path, columns: tuple[Column, ...], said: str
) -> None:
    Shop(tmp_path).publish({day(0): Day((1,))})
    changed = Shop(tmp_path, replace(sales_contract(), columns=columns))
    with pytest.raises(SchemaError, match=said):
        changed.publish({day(1): Day((1,))})
    assert Shop(tmp_path).rows() == {day(0): (1,)}


def test_the_iceberg_schema_of_every_contract_has_its_columns_and_types() -> None:
    for contract in all_contracts().values():
        schema = iceberg_schema(contract)
        assert tuple(field.name for field in schema.fields) == contract.names
        types = [str(kind).replace("large_", "") for kind in schema_to_pyarrow(schema, include_field_ids=False).types]
        assert types == [str(kind).replace("item", "element") for kind in arrow_schema(contract).types]


def test_a_reader_of_iceberg_finds_what_lists_hold(tmp_path: Path) -> None:
    channel = {"name": "channel", "physicalType": "string"}
    Shop(tmp_path, sales_contract(channel)).publish({day(0): Day((1, 2))})
    grown = Shop(tmp_path, sales_contract(channel, {"name": "labels", "physicalType": "array<string>"}))
    grown.publish({day(1): Day((3,))})
    rows = grown.lake.existing("sales").scan().to_arrow().sort_by("amount").select(["amount", "tags", "labels"])
    assert rows.to_pylist() == [
        {"amount": 1, "tags": ["x"], "labels": None},
        {"amount": 2, "tags": ["x"], "labels": None},
        {"amount": 3, "tags": ["x"], "labels": ["x"]},
    ]


def test_a_table_whose_names_were_mapped_wrongly_is_put_right_by_its_next_publish(shop: Shop) -> None:
    shop.publish({day(0): Day((1,))})
    with shop.lake.existing("sales").transaction() as transaction:
        transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: "[]"})
    shop.publish({day(1): Day((2,))})
    assert shop.lake.existing("sales").scan().to_arrow()["amount"].sort().to_pylist() == [1, 2]
