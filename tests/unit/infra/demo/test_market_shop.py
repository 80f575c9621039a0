"""The second shop of the demo: when there is one, that it is `simulated`, and its landing folder whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo import market_shop as shops
from infra.demo.market_shop import land, market_shop
from infra.errors import PlumblineError
from infra.profile import Profile, load_profile


def profile(tmp_path: Path, **fields: str) -> Profile:
    return load_profile("local", {"PLUMBLINE__HOME": str(tmp_path), **fields})


def test_it_is_a_simulated_shop_in_a_folder_of_its_own(tmp_path: Path) -> None:
    shop = market_shop(profile(tmp_path))

    assert shop is not None and shop.landing_origin == "simulated" and shop.systems == ("query_rec",)
    assert shop.home == tmp_path / "market" and shop.landing == tmp_path / "market" / "landing"
    assert str(tmp_path / "market") in shop.database_uri and str(tmp_path / "market") in shop.lake.catalog_uri


def test_nobody_elses_shop_gets_a_second_one(tmp_path: Path) -> None:
    assert market_shop(profile(tmp_path, PLUMBLINE__LANDING=str(tmp_path))) is None
    assert market_shop(profile(tmp_path, PLUMBLINE__SYSTEMS="[generative_rec]")) is None
    assert market_shop(profile(tmp_path, PLUMBLINE__SYSTEMS="[query_rec]")) is not None


def test_its_landing_folder_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile(tmp_path)
    shop = market_shop(first)
    assert shop is not None
    logs = []

    def simulate(folder: Path, *_: object) -> None:
        logs.append(folder)
        for table in ("events", "searches", *(("hint_exposures", "true_hints") if len(logs) > 1 else ())):
            (folder / table).mkdir(parents=True)
            (folder / table / "2026-01-01.parquet").write_text(table)

    monkeypatch.setattr(shops, "_simulate", simulate)
    with pytest.raises(FileNotFoundError):
        land(shop, first)
    assert not shop.landing.exists()
    for _ in range(2):
        land(shop, first)
    assert len(logs) == 2
    assert {path.name for path in shop.landing.iterdir()} == {
        "items",
        "queries",
        "events",
        "searches",
        "hint_exposures",
    }
    assert (shop.landing / "events" / "2026-01-01.parquet").read_text() == "events"
    assert {path.name for path in shop.home.iterdir()} == {"landing", "demo"}


def test_a_market_that_fails_says_where_its_words_are(tmp_path: Path) -> None:
    first = profile(tmp_path)  # which has no catalogue
    shop = market_shop(first)
    assert shop is not None

    with pytest.raises(PlumblineError, match="could not write the log") as raised:
        land(shop, first)
    assert "The market has no catalogue." in Path(raised.value.where).read_text()
