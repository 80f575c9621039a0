"""A folder that appears whole or not at all: after errors, kills, other orders, and beside another writer."""

from __future__ import annotations

import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from infra.errors import DataError
from spark_jobs.market import begun as module
from spark_jobs.market.begun import begun

ORDER: dict[str, str | int] = {"rows": 10, "seed": 7}


def write(folder: Path, order: dict[str, str | int] = ORDER, moment: str = "") -> None:
    if moment:
        place, name = MOMENTS[moment]
        setattr(place, name, _kill_after(getattr(place, name)) if moment == "renamed" else _kill)
    with begun(folder, order) as attempt:
        (attempt / "file").write_text("half")
        if moment == "half":
            _kill()
        (attempt / "file").write_text("whole")


MOMENTS: dict[str, tuple[Any, str]] = {
    "no order": (Path, "replace"),
    "no attempt": (module, "token_hex"),
    "half": (Path, "rmdir"),
    "not renamed": (Path, "rename"),
    "renamed": (Path, "rename"),
    "not cleared": (shutil, "rmtree"),
}


def _kill(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_after(done: Any) -> Any:
    def does(*arguments: Any) -> None:
        done(*arguments)
        _kill()

    return does


def kill(folder: Path, moment: str = "half") -> None:
    child = get_context("spawn").Process(target=write, args=(folder, ORDER, moment))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_the_folder_is_whole_or_not_there_and_the_next_run_ends_alike(
    tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "log"
    (tmp_path / ".log.begun").mkdir()
    kill(folder, moment)
    assert folder.exists() == (moment in ("renamed", "not cleared"))
    if not folder.exists():
        write(folder)
        assert beside(folder) == ["log"]
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("file", "whole")]
    # What has ended leaves nothing that could refuse another order, once the log is taken away.
    shutil.rmtree(folder)
    write(folder, {**ORDER, "seed": 8})
    assert beside(folder) == ["log"]


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
