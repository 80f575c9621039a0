"""Kills, full disks, crowds: whatever interrupts a publish, the table is old or new, and a retry completes the run."""

from __future__ import annotations

import errno
import itertools
import random
from datetime import date
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from infra.errors import EXIT_SUPERSEDED, EXIT_TRANSIENT, TransientError
from infra.lake import verify
from tests.chaos.victims import (
    open_attempts,
    publish_at_the_same_time,
    publish_on_a_small_disk,
    publish_one_by_one,
    publish_until,
    run,
    run_on_a_full_disk,
    servant,
)
from tests.lake_kit import Day, Shop, day

_BEFORE = {day(0): Day((1, 2), bad=(3,)), day(1): Day((4,)), day(2): Day((5,))}
_RUN = {day(0): Day((1,), bad=(2, 3)), day(1): Day(bad=(4,)), day(3): Day((6,)), day(4): Day()}
_KILLED = -9


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return servant()


def _undisturbed(home: Path) -> tuple[Any, ...]:
    shop = Shop(home)
    shop.publish(_BEFORE)
    shop.publish(_RUN)
    return shop.state()


def _is_sound(shop: Shop) -> None:
    assert verify(shop.lake, shop.ledger) == []
    assert shop.ledger.reconcile() == []


def test_a_publish_that_is_killed_at_any_moment_is_completed_by_a_retry(
    tmp_path: Path, context: ForkServerContext
) -> None:
    """Every table's first commit, replaced days, emptied days, new days, quarantined rows: all in one run."""
    expected = _undisturbed(tmp_path / "undisturbed")
    old_rows = {when: content.good for when, content in _BEFORE.items()}
    assert run(context, publish_until, _copy(tmp_path, "all"), _RUN, 0, tmp_path / "moments") == 0
    moments = (tmp_path / "moments").read_text().splitlines()
    assert {line.split()[-1] for line in moments} >= {
        "write_table",
        "commit_table",
        "_write_metadata",
        "_add",
        "record",
        "end",
    }
    for moment in range(1, len(moments) + 1):
        home = _copy(tmp_path, f"killed-{moment}")
        assert run(context, publish_until, home, _RUN, moment, tmp_path / f"log-{moment}") == _KILLED
        shop = Shop(home)
        assert shop.rows() in (old_rows, expected[0]), f"half a publish after {moments[moment - 1]}"
        shop.publish(_RUN)
        assert shop.state() == expected, f"killed {moments[moment - 1]}"
        _is_sound(shop)


def _copy(tmp_path: Path, name: str) -> Path:
    home = tmp_path / name
    Shop(home).publish(_BEFORE)
    return home


def test_the_first_publish_of_all_that_is_killed_at_any_moment_is_completed_by_a_retry(
    tmp_path: Path, context: ForkServerContext
) -> None:
    Shop(tmp_path / "undisturbed").publish(_BEFORE)
    expected = Shop(tmp_path / "undisturbed").state()
    assert run(context, publish_until, tmp_path / "all", _BEFORE, 0, tmp_path / "moments") == 0
    moments = (tmp_path / "moments").read_text().splitlines()
    assert "after create_table" in moments
    for moment in range(1, len(moments) + 1):
        home = tmp_path / f"killed-{moment}"
        assert run(context, publish_until, home, _BEFORE, moment, tmp_path / f"log-{moment}") == _KILLED
        shop = Shop(home)
        assert shop.rows() in ({}, expected[0])
        shop.publish(_BEFORE)
        assert shop.state() == expected, f"killed {moments[moment - 1]}"
        _is_sound(shop)


def test_a_full_disk_leaves_the_old_version_and_a_retry_with_room_completes_the_run(
    tmp_path: Path, context: ForkServerContext
) -> None:
    """The kernel refuses to let files grow: the databases are the first to notice."""
    expected = _undisturbed(tmp_path / "undisturbed")
    for largest_file in (None, 0, 8_000, 30_000):
        shop = Shop(_copy(tmp_path, f"{largest_file} bytes"))
        old_rows = shop.rows()
        if largest_file is None:
            assert run(context, run_on_a_full_disk, shop.home, _RUN) == EXIT_TRANSIENT
        else:
            assert run(context, publish_on_a_small_disk, shop.home, _RUN, largest_file) == EXIT_TRANSIENT
        assert shop.rows() in (old_rows, expected[0])
        shop.publish(_RUN)
        assert shop.state() == expected
        _is_sound(shop)


def test_a_disk_that_fills_up_at_any_write_of_the_lake_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each manifest, manifest list and metadata file of a publish fails once with ENOSPC."""
    expected = _undisturbed(tmp_path / "undisturbed")
    create = PyArrowFile.create
    for write in itertools.count(1):
        shop = Shop(_copy(tmp_path, f"write-{write}"))
        old_rows = shop.rows()
        room = iter(range(write - 1))

        def create_while_there_is_room(file: PyArrowFile, overwrite: bool = False, room: Any = room) -> Any:
            if next(room, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device", file.location)
            return create(file, overwrite)

        with monkeypatch.context() as patch:
            patch.setattr(PyArrowFile, "create", create_while_there_is_room)
            try:
                shop.publish(_RUN)
            except TransientError as error:
                assert "No space left" in error.why
            else:
                break
        assert shop.rows() == old_rows
        shop.publish(_RUN)
        assert shop.state() == expected
        _is_sound(shop)
    assert write > 6


def test_the_same_task_started_twice_at_once_is_one_run(tmp_path: Path, context: ForkServerContext) -> None:
    expected = _undisturbed(tmp_path / "undisturbed")
    for turn in range(5):
        home = _copy(tmp_path, f"home-{turn}")
        codes = _together(context, publish_at_the_same_time, [(home, _RUN), (home, _RUN)])
        assert 0 in codes
        assert set(codes) <= {0, EXIT_SUPERSEDED}
        shop = Shop(home)
        assert shop.state() == expected
        _is_sound(shop)


def test_two_processes_that_publish_other_days_of_one_table_both_get_through(
    tmp_path: Path, context: ForkServerContext
) -> None:
    odd = {day(n): Day((n,), bad=(n,)) for n in range(1, 12, 2)}
    even = {day(n): Day((n,), bad=(n,)) for n in range(0, 12, 2)}
    assert _together(context, publish_one_by_one, [(tmp_path, odd), (tmp_path, even)]) == [0, 0]
    shop = Shop(tmp_path)
    assert shop.rows() == {day(n): (n,) for n in range(12)}
    _is_sound(shop)


def test_two_processes_open_attempts_at_once_and_no_token_is_given_twice(
    tmp_path: Path, context: ForkServerContext
) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    barrier = context.Barrier(2)
    children = [context.Process(target=open_attempts, args=(tmp_path / "home", 20, barrier, file)) for file in files]
    _join(children)
    tokens = [int(token) for file in files for token in file.read_text().split()]
    assert sorted(tokens) == list(range(1, 41))


def test_thirty_days_in_any_order_with_repeats_end_like_thirty_days_in_order(tmp_path: Path) -> None:
    days: dict[date, Day] = {day(n): Day(tuple(range(n % 4)), bad=tuple(range(n % 3))) for n in range(30)}
    chance = random.Random(7)
    in_order, at_random = Shop(tmp_path / "in order"), Shop(tmp_path / "at random")
    for when in days:
        in_order.publish({when: days[when]})
    shuffled = list(days) + chance.sample(list(days), 6)
    chance.shuffle(shuffled)
    for when in shuffled:
        at_random.publish({when: days[when]})
    assert at_random.state() == in_order.state()
    assert len(at_random.ledger.history()) == 30
    _is_sound(at_random)


def _together(context: ForkServerContext, target: Any, arguments: list[tuple[Any, ...]]) -> list[int | None]:
    barrier = context.Barrier(len(arguments))
    return _join([context.Process(target=target, args=(*each, barrier)) for each in arguments])


def _join(children: list[Any]) -> list[int | None]:
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]
