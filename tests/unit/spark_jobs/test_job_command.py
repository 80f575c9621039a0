"""`python -m spark_jobs` as a person types it wrongly: a sentence and an exit code, and no JVM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import spark_jobs.__main__ as command
from infra.errors import EXIT_BUG, EXIT_DATA, exit_with_reason
from infra.profile import CHECKOUT, load_profile
from spark_jobs.engine.spark import explained


def typed(line: str, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["spark_jobs", *line.split()])
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(command.main)
    return ended.value.code


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("sessions --partition 2018-01-05 --from 2018-02-01", EXIT_DATA, "backwards: from 2018-02-01 to 2018-01-05"),
        ("events --partition 2018-01-05 --from 2018-02-01", EXIT_DATA, "backwards: from 2018-02-01 to 2018-01-05"),
        ("sessions --partition 5.1.2018", 2, "'5.1.2018' is not a day; write it as 2018-01-05"),
        ("sessions", EXIT_DATA, "'sessions' needs to know which partition"),
        ("sesions --partition 2018-01-05", 2, "invalid choice: 'sesions'"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_sentence(
    line: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path))
    assert typed(line, monkeypatch) == code
    assert said in capsys.readouterr().err


def test_without_java_a_job_says_what_to_install_and_shows_no_traceback(tmp_path: Path) -> None:
    state = {"PLUMBLINE__HOME": str(tmp_path), "JAVA_HOME": "/no/java/here"}

    ended = subprocess.run(
        [sys.executable, "-m", "spark_jobs", "items"],
        cwd=CHECKOUT,
        env={**os.environ, **state},
        text=True,
        capture_output=True,
    )

    assert ended.returncode == EXIT_BUG
    assert "error: Java did not start.\n  where: JAVA_HOME=/no/java/here\n" in ended.stderr
    assert "Install Java 17 or 21" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_job_that_fails_by_itself_keeps_its_own_error() -> None:
    with pytest.raises(ValueError, match="ours"), explained(load_profile("local", environ={})):
        raise ValueError("ours")
