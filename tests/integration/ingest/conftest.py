"""The shop of the ingest tests, its catalogue ingested."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.profile import load_profile
from tests.landing_kit import ITEMS, Shop


@pytest.fixture
def shop(tmp_path: Path, spark: SparkSession) -> Shop:
    home, landing = tmp_path / "home", tmp_path / "landing zone"
    landing.mkdir()
    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(home), "PLUMBLINE__LANDING": str(landing)})
    shop = Shop(profile)
    shop.put("items.csv", ITEMS)
    shop.ingest("items")
    return shop
