"""A promotion that is killed at a commit point: the ledger decides, and the next command makes MLflow agree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from infra.profile import CHECKOUT, Profile
from registry import aliases, decisions
from registry.promotions import Promotions
from registry.store import connect
from tests.registry_kit import MODEL, empty_store, profile, publish_day, train

__all__ = ["empty_store", "profile"]

# The command, killed as soon as it is about to do what the first argument names.
_COMMAND = """
import os, pkgutil, signal, sys
owner, name = sys.argv.pop(1).rsplit(".", 1)
setattr(pkgutil.resolve_name(owner), name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
from infra.errors import exit_with_reason
from registry.__main__ import main
exit_with_reason(main)
"""
_ROW = "registry.promotions:Promotions._append"
_CHAMPION = "mlflow:MlflowClient.set_registered_model_alias"
_CHALLENGER = "mlflow:MlflowClient.delete_registered_model_alias"


def _killed_before(moment: str, *arguments: str) -> None:
    """Run `python -m registry <arguments>` in a process of its own until the moment comes."""
    argv = [sys.executable, "-c", _COMMAND, moment, *arguments, "--model", MODEL]
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "mlflow")])
    done = subprocess.run(argv, cwd=CHECKOUT / "mlflow", env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.fixture
def two_versions(profile: Profile, tmp_path: Path) -> Profile:
    """Version 1 is champion, version 2 the challenger."""
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    for number, hits in (("one", 20), ("two", 40)):
        train(profile, tmp_path / number, snapshot=snapshot, hits=hits)
        assert decisions.hold_gate(profile, MODEL).passed
        if number == "one":
            decisions.promote(profile, MODEL, who="ada")
    assert aliases.aliases(connect(profile), MODEL) == {"champion": "1", "challenger": "2"}
    return profile


@pytest.mark.parametrize(
    ("moment", "rows", "left"),
    [
        (_ROW, 1, {"champion": "1", "challenger": "2"}),
        (_CHAMPION, 2, {"champion": "1", "challenger": "2"}),
        (_CHALLENGER, 2, {"champion": "2", "challenger": "2"}),
    ],
    ids=["before the row", "between row and champion", "between champion and challenger"],
)
def test_a_promotion_that_was_killed_is_completed_once_by_its_retry(
    two_versions: Profile, moment: str, rows: int, left: dict[str, str]
) -> None:
    _killed_before(moment, "promote", "--version", "2")
    ledger, client = Promotions(two_versions), connect(two_versions)
    assert (len(ledger.history(MODEL)), aliases.aliases(client, MODEL)) == (rows, left)
    assert ledger.champion(MODEL) == ("2" if rows == 2 else "1")
    decisions.promote(two_versions, MODEL, "2", who="ada")
    assert [row.to_version for row in ledger.history(MODEL)] == ["1", "2"]
    assert aliases.aliases(client, MODEL) == {"champion": "2"}


def test_whatever_command_comes_next_repairs_what_a_kill_left(two_versions: Profile) -> None:
    _killed_before(_CHAMPION, "promote", "--version", "2")
    decisions.compare(two_versions, MODEL, "1")  # a command that only reads
    assert aliases.aliases(connect(two_versions), MODEL) == {"champion": "2"}


def test_a_rollback_that_was_killed_is_not_done_twice_by_the_next_command(two_versions: Profile) -> None:
    decisions.promote(two_versions, MODEL, "2", who="ada")
    _killed_before(_CHAMPION, "rollback", "--reason", "bad")
    decisions.compare(two_versions, MODEL, "2")
    assert aliases.aliases(connect(two_versions), MODEL) == {"champion": "1"}
    assert [row.decision for row in Promotions(two_versions).history(MODEL)] == ["promote", "promote", "rollback"]
