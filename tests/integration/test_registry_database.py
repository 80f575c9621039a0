"""MLflow's database of a first start: made by whoever comes first, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from infra.profile import Profile
from registry.store import connect

_KILLED = 9


def begun(work: Callable[[], object]) -> int:
    """The process that does `work`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def fresh(profile: Profile) -> Profile:
    assert not Path(profile.home / "mlflow").exists() and mlflow.__version__  # what children would import each
    return profile


def test_a_first_start_that_was_killed_leaves_nothing_that_later_ones_trip_over(fresh: Profile) -> None:
    def dies_half_way() -> None:
        def after(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
            if "CREATE TABLE _alembic_tmp" in statement:
                os._exit(_KILLED)

        event.listen(Engine, "after_cursor_execute", after)
        connect(fresh)

    assert ended(begun(dies_half_way)) == _KILLED
    assert [one.name for one in connect(fresh).search_experiments()] == ["Default"]
    assert [file.name for file in (fresh.home / "mlflow").iterdir() if ".new" in file.name] == []


def test_several_first_starts_at_once_find_one_database(fresh: Profile) -> None:
    children = [begun(lambda: connect(fresh).search_experiments()) for _ in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
