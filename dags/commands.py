"""Runs one of our commands for a task: `python <arguments>`, without a shell, in the interpreter of the worker.

Its output is the task's log. The exit code decides about a retry: 75 (transient, preempted) may be repeated as often as
the task's retry class says, everything else fails at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.partitions import PartitionRange, days, require_known
from infra import endings, processes, warm
from infra.errors import EXIT_DATA, EXIT_SUPERSEDED, EXIT_TRANSIENT, DataError
from infra.profile import CHECKOUT
from infra.results import RESULT_FILE
from infra.telemetry import TELEMETRY_OFF

_GRACE_SECONDS = 60
_FINAL = {
    EXIT_DATA: "the data, a setting or a name is wrong",
    EXIT_SUPERSEDED: "a newer start of this task has taken over",
}


class Commands:
    """The part of an operator that runs commands, one at a time, and leaves none behind."""

    log: Any
    outlets: Any
    _process: warm.Process | None = None

    def run_command(self, arguments: Sequence[str]) -> Any:
        """Run `python <arguments>`; returns what it hands on (`infra.results`), raises what its exit code asks for."""
        with tempfile.TemporaryDirectory() as scratch:
            result = Path(scratch) / "result"
            code = self._run(
                arguments, {**os.environ, **TELEMETRY_OFF, "PYTHONUNBUFFERED": "1", RESULT_FILE: str(result)}
            )
            raise_for_exit_code(code, arguments)
            return json.loads(result.read_text()) if result.exists() else None

    def check_run(self, context: Any) -> None:
        """Refuse what the run was told in vain, before anything is done."""
        with refusals():
            require_known(context.get("params", {}))
        if self.outlets:
            range_of(context["partition_key"], context["params"], context["triggering_asset_events"])

    def label_events(self, context: Any, result: Any = None) -> None:
        """Write the run's range on the asset events of the task; from `result["from"]` where that is earlier."""
        if self.outlets:
            span = range_of(context["partition_key"], context["params"], context["triggering_asset_events"])
            if isinstance(result, dict) and (since := result.get("from")):
                span = replace(span, first=min(span.first, date.fromisoformat(since)))
            for asset in self.outlets:
                context["outlet_events"][asset].extra = span.extra()

    def stop_command(self) -> None:
        """Stop the command and all that it started: first politely, so that training can save a checkpoint."""
        if self._process is not None and self._process.poll() is None:
            processes.stop([self._process.pid], _GRACE_SECONDS)

    def _run(self, arguments: Sequence[str], environment: dict[str, str]) -> int:
        self.log.info("%s %s", processes.COMMAND_MARK, shlex.join(arguments))
        argv = [sys.executable, *arguments]
        self._process = warm.start("steps", argv, CHECKOUT, environment)
        try:
            return endings.follow(self._process, self.log.info)
        finally:
            self.stop_command()


@contextmanager
def refusals() -> Iterator[None]:
    """Wrong data said of a run itself: the task fails at once, as by a command's exit code."""
    try:
        yield
    except DataError as error:
        raise AirflowFailException(f"{error}\n{_FINAL[EXIT_DATA]} (exit code {EXIT_DATA}); not retried.") from None


def range_of(partition_key: str | None, params: Any, triggering_asset_events: Any) -> PartitionRange:
    """`dags.partitions.days` as the templates use it: a run whose days make no sense fails at its first task."""
    with refusals():
        return days(partition_key, params, triggering_asset_events)


def raise_for_exit_code(code: int, arguments: Sequence[str], held: str = "") -> None:
    """Turn an exit code into Airflow's answer: nothing, a failure that may be retried, or one that may not.

    `held`: how much memory it had, where somebody else than this process waited for it.
    """
    command, number = f"python {shlex.join(arguments)}", endings.signal_of(code)
    if code == 0:
        return
    if number in endings.TAKEN_AWAY:
        what = f"{endings.TAKEN_AWAY[number]}; {held or endings.largest()}"
        raise AirflowException(f"{command}: {what}; a retry can help (exit code {EXIT_TRANSIENT}).")
    if code == EXIT_TRANSIENT:
        raise AirflowException(f"{command}: transient or preempted (exit code {code}); a retry can help.")
    kind = _FINAL.get(code, f"a bug, it crashed by {number.name}" if number else "a bug")
    raise AirflowFailException(f"{command}: {kind} (exit code {code}); not retried. The reason stands above.")
