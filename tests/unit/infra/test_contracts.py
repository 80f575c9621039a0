from __future__ import annotations

import copy

import pyarrow as pa
import pytest
import yaml

from infra.contracts import CONTRACTS, ContractError, all_contracts, arrow_schema, load_contract, parse_contract

EVENTS = yaml.safe_load((CONTRACTS / "events.yaml").read_text())


def test_every_contract_names_an_owner_a_grain_a_key_and_a_date_partition() -> None:
    for contract in all_contracts().values():
        types = {column.name: column.type for column in contract.columns}
        assert contract.owner and contract.grain and contract.key, contract.table
        assert types[contract.partition] == "date", contract.table
        assert set(contract.key) <= set(types), contract.table


def test_the_file_name_is_the_table_name() -> None:
    assert all(name == contract.table for name, contract in all_contracts().items())


def test_times_are_utc_microseconds() -> None:
    schema = arrow_schema(load_contract("events"))
    assert schema.field("event_time").type == pa.timestamp("us", tz="UTC")


def test_required_columns_are_not_nullable() -> None:
    schema = arrow_schema(load_contract("events"))
    assert not schema.field("user_id").nullable
    assert schema.field("rating").nullable


def test_a_missing_field_is_named() -> None:
    broken = copy.deepcopy(EVENTS)
    del broken["team"]
    with pytest.raises(ContractError, match="team"):
        parse_contract(broken, "events.yaml")


def test_an_unknown_type_is_named() -> None:
    broken = copy.deepcopy(EVENTS)
    broken["schema"][0]["properties"][1]["physicalType"] = "money"
    with pytest.raises(ContractError, match="money"):
        parse_contract(broken, "events.yaml")


def test_a_table_without_a_contract_says_so() -> None:
    with pytest.raises(ContractError, match="no contract"):
        load_contract("nowhere")
