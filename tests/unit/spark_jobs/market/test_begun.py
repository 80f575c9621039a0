"""A folder that appears whole or not at all: after errors, kills, other orders, and beside another writer."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from infra.errors import DataError
from spark_jobs.market.begun import begun

ORDER: dict[str, str | int] = {"rows": 10, "seed": 7}


def write(folder: Path, order: dict[str, str | int] = ORDER, killed: bool = False) -> None:
    with begun(folder, order) as attempt:
        (attempt / "file").write_text("half")
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        (attempt / "file").write_text("whole")


def kill(folder: Path) -> None:
    child = get_context("spawn").Process(target=write, args=(folder, ORDER, True))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and not folder.exists()


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


@pytest.mark.parametrize("there", [False, True])
def test_the_folder_appears_whole_and_nothing_stays_beside_it(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "log"
    if there:
        folder.mkdir()
    write(folder)
    assert (folder / "file").read_text() == "whole" and beside(folder) == ["log"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with pytest.raises(ZeroDivisionError), begun(folder, ORDER) as attempt:
        (attempt / "file").write_text("half")
        raise ZeroDivisionError
    assert beside(folder) == []


def test_after_a_kill_the_same_order_goes_through_and_what_was_left_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for _ in range(2):
        kill(folder)
        assert len(list(folder.parent.glob(".log.begun/attempt-*"))) == 1
    write(folder)
    assert (folder / "file").read_text() == "whole" and beside(folder) == ["log"]


def test_what_another_order_has_begun_is_refused_in_words_until_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    kill(folder)
    left = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="begun this folder by another order") as refused:
        write(folder, {**ORDER, "seed": 8})
    assert refused.value.why == "seed: 7 there, 8 now" and str(tmp_path / ".log.begun") in refused.value.do
    assert sorted(tmp_path.rglob("*")) == left
    write(tmp_path / "other", {**ORDER, "seed": 8})
    write(folder)
    assert (folder / "file").read_text() == "whole"


def test_while_one_writes_another_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with begun(folder, ORDER) as attempt:
        (attempt / "file").write_text("of the first")
        for order in (ORDER, {**ORDER, "seed": 8}):
            with pytest.raises(DataError, match="Another run is writing this folder"):
                write(folder, order)
    assert (folder / "file").read_text() == "of the first" and beside(folder) == ["log"]
