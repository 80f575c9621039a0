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
    days = {"2": frozenset({MON, TUE})}
    stock = take_stock([present("a", "1"), present("b", "2")], [remembered("a", "1", MON)], days, {MON: {"1": "a"}})
    assert [holding.name for holding in stock.of(MON)] == ["a", "b"]
    assert stock.days == [MON, TUE]
    assert [file.name for file in stock.files([TUE])] == ["b"]


def test_a_renamed_file_is_the_same_content() -> None:
    stock = take_stock([present("z", "1")], [remembered("a", "1", MON)], {}, {MON: {"1": "a"}})
    assert [holding.sha256 for holding in stock.of(MON)] == ["1"]
    assert stock.out_of_reach(MON) == ""
    assert stock.released == frozenset()


def test_a_replaced_file_releases_the_days_that_were_made_of_it_until_they_are_made_anew() -> None:
    days = {"2": frozenset({TUE, WED})}
    for memory in ([remembered("a", "1", MON, TUE)], []):  # what was replaced is forgotten with the run that sees it
        stock = take_stock([present("a", "2")], memory, days, {MON: {"1": "a"}, TUE: {"1": "a"}})
        assert stock.days == [MON, TUE, WED]
        assert stock.of(MON) == []
        assert [holding.sha256 for holding in stock.of(TUE)] == ["2"]
    assert take_stock([present("a", "2")], [], days, {MON: {}, TUE: {"2": "a"}}).released == frozenset()


def test_a_name_that_takes_other_content_does_not_drop_what_lies_under_another_name() -> None:
    stock = take_stock(
        [present("01", "1"), present("latest", "2")],
        [remembered("latest", "1", MON)],
        {"2": frozenset({TUE})},
        {MON: {"1": "a"}},
    )
    assert [holding.name for holding in stock.of(MON)] == ["01"]


def test_a_file_that_is_gone_keeps_its_days_and_puts_them_out_of_reach() -> None:
    memory = [remembered("a", "1", MON), remembered("b", "2", TUE)]
    stock = take_stock([present("b", "2")], memory, {}, {MON: {"1": "a"}, TUE: {"2": "b"}})
    assert stock.out_of_reach(MON) == "a"
    assert stock.out_of_reach(TUE) == ""


def test_a_file_that_is_gone_is_not_asked_for_by_days_that_have_nothing_of_it() -> None:
    stock = take_stock(
        [], [remembered("a", "1", MON, TUE), remembered("never", "2", WED)], {}, {MON: {"1": "a"}, TUE: {}}
    )
    assert [stock.out_of_reach(day) for day in (MON, TUE, WED)] == ["a", "", ""]
    assert (stock.days, stock.forgotten) == ([MON], {"a": [TUE], "never": [WED]})


def test_rows_of_a_replaced_file_stay_where_what_replaced_it_is_gone_too() -> None:
    stock = take_stock([present("b", "3")], [remembered("a", "2", MON)], {"3": frozenset({MON})}, {MON: {"1": "a"}})
    assert stock.out_of_reach(MON) == "a"
    assert stock.released == frozenset()


def test_two_files_of_one_content_count_once() -> None:
    stock = take_stock([present("a", "1"), present("copy", "1")], [], {"1": frozenset({MON})}, {})
    assert [holding.name for holding in stock.of(MON)] == ["a"]
