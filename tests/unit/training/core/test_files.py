"""Folders that are either the old one or the new one, wherever a kill comes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.core.files import found, new_folder

CALLS = ("mkdir", "replace", "fsync", "unlink", "rmdir")


def write(path: Path, content: str) -> None:
    with new_folder(path) as scratch:
        for name in ("weights", "cursor"):
            (scratch / name).write_text(content)


def content(path: Path) -> list[str]:
    """What the files of the folder say."""
    return [(found(path) / name).read_text() for name in ("weights", "cursor")]


def killed_before_call(number: int, work: Callable[[], None]) -> bool:
    """Do `work` in another process that dies, as by SIGKILL, before its n-th call that changes the disk; or not."""
    child = os.fork()
    if child == 0:
        left = [number]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return call(*given, **named)

            return counting

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("before", [None, "old"])
def test_killed_before_any_call_the_old_or_the_new_folder_is_found_whole(tmp_path: Path, before: str | None) -> None:
    kills, seen = 0, set()
    while True:
        path = tmp_path / str(kills) / "last"
        if before:
            write(path, before)
        if not killed_before_call(kills, lambda path=path: write(path, "new")):
            break
        there = found(path).exists()
        assert there or before is None
        assert not there or content(path) in ([before, before], ["new", "new"])
        seen.add(content(path)[0] if there else None)
        write(path, "newest")
        assert content(path) == ["newest", "newest"]
        assert not (path.parent / ".last.old").exists()
        kills += 1
    assert seen == {before, "new"} and kills > 5


def test_a_second_kill_does_not_lose_what_the_first_one_put_aside(tmp_path: Path) -> None:
    aside = 0
    for first in range(15):
        path = tmp_path / f"{first}" / "last"
        write(path, "old")
        killed_before_call(first, lambda path=path: write(path, "new"))
        if path.exists():
            continue
        aside += 1
        for second in range(15):
            other = path.parent.with_name(f"{first}-{second}") / "last"
            shutil.copytree(path.parent, other.parent)
            killed_before_call(second, lambda path=other: write(path, "newer"))
            assert content(other)[0] == content(other)[1] in ("old", "newer")
    assert aside == 1


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "last", "old")
    write(tmp_path / "last", "new")
    assert content(tmp_path / "last") == ["new", "new"]
    assert [file.name for file in tmp_path.iterdir()] == ["last"]


def test_an_error_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "last", "old")
    with pytest.raises(KeyError), new_folder(tmp_path / "last") as scratch:
        (scratch / "weights").write_text("half")
        raise KeyError
    assert content(tmp_path / "last") == ["old", "old"]
    assert [file.name for file in tmp_path.iterdir()] == ["last"]
