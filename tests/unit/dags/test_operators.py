"""What a task makes of its command: output to the log, the exit code to a decision about a retry."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dags.builder import asset, command, refused
from dags.commands import raise_for_exit_code
from dags.operators import RunCommand
from infra.errors import EXIT_BUG, EXIT_DATA, EXIT_SUPERSEDED, EXIT_TRANSIENT

airflow = pytest.importorskip("airflow.sdk.exceptions")


class Log(list[str]):
    """A task's log: what was written with `info`."""

    def info(self, text: str, *parts: object) -> None:
        self.append(text % parts if parts else text)

    def warning(self, text: str, *parts: object) -> None:
        """Airflow's remark that `execute` was called outside of its runner."""


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a task that runs a piece of Python, with a log that can be read."""

    def task(code: str, **options: Any) -> tuple[RunCommand, Log]:
        made, log = command("work", "-c", code, minutes=1, **options), Log()
        monkeypatch.setattr(RunCommand, "log", log)
        return made, log

    yield task


def test_the_log_has_the_command_and_then_its_output_line_by_line(make: Any) -> None:
    task, log = make("import sys; print('out'); print('err', file=sys.stderr)")
    assert task.execute({}) is None
    assert log[0].startswith("$ python -c ")
    assert sorted(log[1:]) == ["err", "out"]


def test_what_a_command_hands_on_is_the_tasks_result(make: Any) -> None:
    task, _ = make("from infra.results import hand_on; hand_on({'version': '3'})")
    assert task.execute({}) == {"version": "3"}


def test_a_task_without_anything_to_do_is_skipped_with_the_reason(make: Any) -> None:
    task, _ = make("from infra.results import NOTHING, hand_on; hand_on({NOTHING: 'no model yet'})")
    with pytest.raises(airflow.AirflowSkipException, match="no model yet"):
        task.execute({})


def test_outside_a_task_nothing_is_handed_on(tmp_path: Path) -> None:
    code = "from infra.results import hand_on; hand_on(1)"
    assert subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_arguments_reach_the_command_as_they_are(make: Any) -> None:
    task, log = make("import sys; print(sys.argv[1])")
    task.arguments.append("a b; rm -rf $HOME `date`")
    task.execute({})
    assert log[-1] == "a b; rm -rf $HOME `date`"


@pytest.mark.parametrize("code", [EXIT_TRANSIENT, -signal.SIGTERM, -signal.SIGKILL, 143, 137])
def test_transient_and_preempted_may_be_retried(code: int) -> None:
    with pytest.raises(airflow.AirflowException) as caught:
        raise_for_exit_code(code, ["-m", "x"])
    assert not isinstance(caught.value, airflow.AirflowFailException)


@pytest.mark.parametrize("code", [EXIT_DATA, EXIT_BUG, EXIT_SUPERSEDED, 1, 2, -signal.SIGSEGV, 139])
def test_everything_else_fails_at_once(code: int) -> None:
    with pytest.raises(airflow.AirflowFailException):
        raise_for_exit_code(code, ["-m", "x"])


@pytest.mark.parametrize(("retry", "retries"), [("transient", 2), ("preempted", 10), ("data", 0), ("bug", 0)])
def test_a_retry_class_is_a_ceiling(retry: str, retries: int) -> None:
    assert command("work", "-m", "x", minutes=1, retry=retry).retries == retries


def test_an_asset_event_carries_the_range_of_the_run(make: Any) -> None:
    task, _ = make("pass", outlets=[asset("events")])

    class Event:
        extra: dict[str, str] | None = None

    events = {asset("events"): Event()}
    context = {"partition_key": "2018-01-05", "params": {"from": "2018-01-01"}, "triggering_asset_events": {}}
    task.execute({**context, "outlet_events": events})
    assert events[asset("events")].extra == {"from": "2018-01-01", "to": "2018-01-05"}


def test_a_task_of_a_run_with_an_unknown_key_of_conf_runs_nothing(make: Any) -> None:
    task, log = make("pass")
    with pytest.raises(airflow.AirflowFailException, match=r"unknown key: form(.|\n)*\(exit code 65\); not retried"):
        task.execute({"params": {"from": None, "form": "2018-01-01"}})
    assert log == []


def test_a_killed_task_leaves_no_process_behind(make: Any) -> None:
    """The command has a child of its own, as Spark and accelerate have."""
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    task, _ = make("pass")
    argv = [sys.executable, "-c", f"{child}; print(p.pid, flush=True); p.wait()"]
    task._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert task._process.stdout is not None
    grandchild = psutil.Process(int(task._process.stdout.readline()))
    task.on_kill()
    assert task._process.poll() is not None
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_command_that_the_system_kills_is_tried_again_and_its_memory_is_told(make: Any) -> None:
    task, _ = make("import os, signal; held = b'x' * 2**29; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(airflow.AirflowException, match="out of memory; it held") as caught:
        task.execute({})
    told = re.search(r"held (\d+\.\d) GiB at its peak", str(caught.value))
    assert told is not None
    assert float(told[1]) >= 0.5, "the largest of all children of this process, so other tests may have had larger ones"
    assert not isinstance(caught.value, airflow.AirflowFailException)
    assert "(exit code 75)" in str(caught.value), "what follows the task reads the class of the failure there"


class Handed:
    """A run in which `landed` has handed this on."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def xcom_pull(self, task_ids: str) -> Any:
        return self.result if task_ids == "landed" else None


@pytest.mark.parametrize("result", [None, {"from": "2018-01-01"}])
def test_where_nothing_was_refused_the_task_that_tells_is_green(result: Any) -> None:
    assert refused("refused", of="landed").execute({"ti": Handed(result)}) is None  # type: ignore[func-returns-value]


def test_what_was_refused_fails_the_task_that_tells_with_the_code_of_data() -> None:
    with pytest.raises(airflow.AirflowFailException, match=r"(?s)events/a\.csv.*exit code 65"):
        refused("refused", of="landed").execute({"ti": Handed({"refused": ["events/a.csv: it is empty"]})})
