"""The operators of the DAGs: run one of our commands, ask a person; and when a pod is worth another try.

`RunCommand` runs `python <arguments>` without a shell, in the interpreter of the worker; its output is the task's log.
The exit code decides about a retry: 75 (transient, preempted) may be repeated as often as the task's retry class says,
everything else fails at once. The asset events of the task carry the range of the run.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.partitions import days
from dags.results import RESULT_FILE
from infra import processes
from infra.errors import EXIT_DATA, EXIT_SUPERSEDED, EXIT_TRANSIENT
from infra.launch import EXIT_CODE_FILE
from infra.profile import CHECKOUT
from infra.telemetry import TELEMETRY_OFF

_GRACE_SECONDS = 60
_RETRYABLE = {EXIT_TRANSIENT, -signal.SIGTERM, -signal.SIGKILL}
_FINAL = {EXIT_DATA: "the data is wrong", EXIT_SUPERSEDED: "a newer start of this task has taken over"}


class RunCommand(BaseOperator):  # type: ignore[misc]
    """Run `python <arguments>`; what the command hands on (`dags.results`) is the task's XCom."""

    template_fields: Sequence[str] = ("arguments",)
    ui_color = "#e8f0fe"

    def __init__(self, *, arguments: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arguments = list(arguments)
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> Any:
        """Run the command; raises what its exit code asks for."""
        self._label_events(context)
        with tempfile.TemporaryDirectory() as scratch:
            result = Path(scratch) / "result"
            code = self._run({**os.environ, **TELEMETRY_OFF, "PYTHONUNBUFFERED": "1", RESULT_FILE: str(result)})
            judge(code, self.arguments)
            return json.loads(result.read_text()) if result.exists() else None

    def on_kill(self) -> None:
        """Stop the command and all that it started: first politely, so that training can save a checkpoint."""
        if self._process is not None and self._process.poll() is None:
            processes.stop([self._process.pid], _GRACE_SECONDS)

    def _label_events(self, context: Any) -> None:
        if self.outlets:
            span = days(context["partition_key"], context["params"], context["triggering_asset_events"])
            for asset in self.outlets:
                context["outlet_events"][asset].extra = span.extra()

    def _run(self, environment: dict[str, str]) -> int:
        self.log.info("%s %s", processes.COMMAND_MARK, shlex.join(self.arguments))
        argv = [sys.executable, *self.arguments]
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        self._process = subprocess.Popen(argv, cwd=CHECKOUT, env=environment, stdout=pipe, stderr=merged, text=True)
        try:
            return follow(self._process, self.log.info)
        finally:
            self.on_kill()


class Approval(HITLOperator):  # type: ignore[misc]
    """Ask for `Approve` or `Reject`, unless the profile has answered (`by_flag`) or there is no `version` to judge."""

    template_fields: Sequence[str] = (*HITLOperator.template_fields, "version")

    def __init__(self, *, version: str, by_flag: bool, **kwargs: Any) -> None:
        super().__init__(options=["Approve", "Reject"], **kwargs)
        self.version, self.by_flag = version, by_flag

    def execute(self, context: Any) -> Any:
        """Wait for a person, or answer for the profile."""
        if self.version and not self.by_flag:
            return super().execute(context)
        reason = "approve_by_flag is set in the profile" if self.version else "there is nothing to decide"
        self.log.info("Nobody is asked: %s.", reason)
        form = {"reason": reason, "override": False}
        return {
            "chosen_options": ["Approve"],
            "params_input": form,
            "responded_by_user": {"id": "flag", "name": "flag"},
        }


class PodRetries(RetryPolicy):  # type: ignore[misc]
    """A failed pod is tried again if its stage said so, or could say nothing because its node was taken away."""

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """The stage's own exit code lies beside the spec that the pod was given."""
        command = context["task"].pod_template_dict["spec"]["containers"][0]["command"]
        left = Path(command[-1]).with_name(EXIT_CODE_FILE)
        code = int(left.read_text()) if left.is_file() else EXIT_TRANSIENT
        if code in _RETRYABLE:
            return RetryDecision.default()
        return RetryDecision.fail(f"The stage ended with exit code {code}: a retry cannot help.")


def follow(process: subprocess.Popen[str], emit: Callable[[str], object]) -> int:
    """Hand on each line of output; returns the exit code (negative: ended by that signal)."""
    assert process.stdout is not None
    for line in process.stdout:
        emit(line.rstrip("\n"))
    return process.wait()


def judge(code: int, arguments: Sequence[str]) -> None:
    """Turn an exit code into Airflow's answer: nothing, a failure that may be retried, or one that may not."""
    if code == 0:
        return
    command = f"python {shlex.join(arguments)}"
    if code in _RETRYABLE:
        raise AirflowException(f"{command}: transient or preempted (exit code {code}); a retry can help.")
    kind = _FINAL.get(code, "a bug")
    raise AirflowFailException(f"{command}: {kind} (exit code {code}); not retried. The reason stands above.")
