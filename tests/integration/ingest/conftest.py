"""The shop of the ingest tests, its catalogue ingested."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.profile import load_profile
from tests.landing_kit import ITEMS, Shop


@pytest.fixture
def new_shop(tmp_path: Path, spark: SparkSession) -> Shop:
    """Nothing has landed yet."""
    home, landing = tmp_path / "home", tmp_path / "landing zone"
    landing.mkdir()
    return Shop(load_profile("local", environ={"PLUMBLINE__HOME": str(home), "PLUMBLINE__LANDING": str(landing)}))


@pytest.fixture
def shop(new_shop: Shop) -> Shop:
    new_shop.put("items.csv", ITEMS)
    new_shop.ingest("items")
    return new_shop
