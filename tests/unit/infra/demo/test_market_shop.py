"""The second shop of the demo: when there is one, that it is `simulated`, and its landing folder whole or absent."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import date
from pathlib import Path

import psutil
import pytest

from infra import processes
from infra.airflow_env import airflow_environment
from infra.demo.__main__ import _demo_profile
from infra.demo.landing import LandedDays
from infra.demo.market_shop import MarketLog, market_shop
from infra.errors import PlumblineError
from infra.profile import Profile, load_profile


def profile(tmp_path: Path, **fields: str) -> Profile:
    return load_profile("local", {"PLUMBLINE__HOME": str(tmp_path), **fields})


def test_it_is_a_simulated_shop_in_a_folder_of_its_own(tmp_path: Path) -> None:
    shop = market_shop(profile(tmp_path))

    assert shop is not None and shop.landing_origin == "simulated" and shop.systems == ("query_rec",)
    assert shop.home == tmp_path / "market" and shop.landing == tmp_path / "market" / "landing"
    assert str(tmp_path / "market") in shop.database_uri and str(tmp_path / "market") in shop.lake.catalog_uri


def test_tasks_find_the_same_profile_as_the_demo_has(tmp_path: Path) -> None:
    first = profile(tmp_path)
    shop = market_shop(first)
    assert shop is not None
    days = LandedDays(date(2026, 1, 1), date(2026, 1, 31), date(2026, 1, 20), date(2026, 1, 25))
    for one in (first, shop):
        shown = _demo_profile(one, days)
        assert load_profile(environ=airflow_environment(shown)) == shown


def test_nobody_elses_shop_gets_a_second_one(tmp_path: Path) -> None:
    assert market_shop(profile(tmp_path, PLUMBLINE__LANDING=str(tmp_path))) is None
    assert market_shop(profile(tmp_path, PLUMBLINE__SYSTEMS="[generative_rec]")) is None
    assert market_shop(profile(tmp_path, PLUMBLINE__SYSTEMS="[query_rec]")) is not None


WRITES = """
import sys, pathlib
for table in sys.argv[2:]:
    folder = pathlib.Path(sys.argv[1]) / table
    folder.mkdir(parents=True)
    (folder / "2026-01-01.parquet").write_text(table)
"""


def market_of(monkeypatch: pytest.MonkeyPatch, code: str, *tables: str) -> None:
    """In place of the market a few lines of Python, with its folder and `tables` as their arguments."""
    monkeypatch.setattr(
        processes, "python", lambda *words: [sys.executable, "-c", code, words[words.index("--folder") + 1], *tables]
    )


def test_its_landing_folder_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile(tmp_path)
    shop = market_shop(first)
    assert shop is not None
    market_of(monkeypatch, WRITES, "events", "searches")
    with pytest.raises(FileNotFoundError):
        MarketLog(shop, first).land()
    assert not shop.landing.exists()
    market_of(monkeypatch, WRITES, "events", "searches", "hint_exposures", "true_hints")
    log = MarketLog(shop, first)
    log.begin()
    log.land()
    market_of(monkeypatch, "raise SystemExit(1)")
    again = MarketLog(shop, first)
    again.begin()
    again.land()
    assert {path.name for path in shop.landing.iterdir()} == {
        "items",
        "queries",
        "events",
        "searches",
        "hint_exposures",
    }
    assert (shop.landing / "events" / "2026-01-01.parquet").read_text() == "events"
    assert {path.name for path in shop.home.iterdir()} == {"landing", "demo"}


def test_a_market_at_work_ends_with_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile(tmp_path)
    shop = market_shop(first)
    assert shop is not None
    market_of(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt), closing(MarketLog(shop, first)) as log:
        log.begin()
        assert log._market is not None
        market = psutil.Process(log._market.pid)
        raise KeyboardInterrupt
    assert not market.is_running()
    assert not shop.landing.exists()


def test_a_market_that_fails_says_where_its_words_are(tmp_path: Path) -> None:
    first = profile(tmp_path)  # which has no catalogue
    shop = market_shop(first)
    assert shop is not None

    with pytest.raises(PlumblineError, match="could not write the log") as raised:
        MarketLog(shop, first).land()
    assert "The market has no catalogue." in Path(raised.value.where).read_text()
