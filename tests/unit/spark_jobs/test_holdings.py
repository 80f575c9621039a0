"""What the landing folder and the ledger's memory together say about each day."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from infra.ledger import LandingFile as Remembered
from spark_jobs.ingest.holdings import take_stock
from spark_jobs.landing.files import LandingFile

MON, TUE, WED = (date(2024, 3, n) for n in (4, 5, 6))


def present(name: str, sha256: str) -> LandingFile:
    return LandingFile(name, Path("/landing") / name, sha256)


def remembered(name: str, sha256: str, *days: date) -> Remembered:
    return Remembered(name, sha256, len(days), dict.fromkeys(days, 1))


def test_a_new_file_joins_the_days_it_holds() -> None:
    stock = take_stock(
        [present("a", "1"), present("b", "2")], [remembered("a", "1", MON)], {"2": frozenset({MON, TUE})}
    )
    assert [holding.name for holding in stock.of(MON)] == ["a", "b"]
    assert stock.days == [MON, TUE]
    assert [file.name for file in stock.files([TUE])] == ["b"]


def test_a_renamed_file_is_the_same_content() -> None:
    stock = take_stock([present("z", "1")], [remembered("a", "1", MON)], {})
    assert [holding.sha256 for holding in stock.of(MON)] == ["1"]
    assert stock.out_of_reach(MON) == ""
    assert stock.released == frozenset()


def test_a_replaced_file_releases_the_days_it_held() -> None:
    stock = take_stock([present("a", "2")], [remembered("a", "1", MON, TUE)], {"2": frozenset({TUE, WED})})
    assert stock.days == [MON, TUE, WED]
    assert stock.of(MON) == []
    assert [holding.sha256 for holding in stock.of(TUE)] == ["2"]


def test_a_file_that_is_gone_keeps_its_days_and_puts_them_out_of_reach() -> None:
    stock = take_stock([present("b", "2")], [remembered("a", "1", MON), remembered("b", "2", TUE)], {})
    assert stock.out_of_reach(MON) == "a"
    assert stock.out_of_reach(TUE) == ""


def test_two_files_of_one_content_count_once() -> None:
    stock = take_stock([present("a", "1"), present("copy", "1")], [], {"1": frozenset({MON})})
    assert [holding.name for holding in stock.of(MON)] == ["a"]
