"""The operators of the DAGs: run one of our commands, and ask a person. A stage in a pod is `dags.pods`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from dags.commands import Commands, refusals
from infra.errors import DataError
from infra.results import NOTHING


class RunCommand(Commands, BaseOperator):  # type: ignore[misc]
    """Run `python <arguments>`; what it hands on is the task's XCom, and its asset events carry the run's range. Where
    that says that there is nothing to do, the task and those that follow it are skipped."""

    template_fields: Sequence[str] = ("arguments",)
    ui_color = "#e8f0fe"

    def __init__(self, *, arguments: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arguments = list(arguments)

    def execute(self, context: Any) -> Any:
        """Run the command; raises what its exit code asks for."""
        self.check_run(context)
        result = self.run_command(self.arguments)
        if isinstance(result, dict) and (reason := result.get(NOTHING)):
            raise AirflowSkipException(reason)
        self.label_events(context, result)
        return result

    def on_kill(self) -> None:
        """Leave no process behind."""
        self.stop_command()


class Refused(BaseOperator):  # type: ignore[misc]
    """Fail where the task `of`, which went on without them, has handed on that something was `refused`."""

    def __init__(self, *, of: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = of

    def execute(self, context: Any) -> None:
        """Raise what was refused: it is in no table until somebody mends it."""
        result = context["ti"].xcom_pull(task_ids=self.of) or {}
        if lines := result.get("refused"):
            with refusals():
                raise DataError(
                    "Landing files or days were refused; the others go on without them.",
                    why="\n".join(["", *(f"- {line}" for line in lines)]),
                    do="Mend what is named, put it back under the same name, and trigger the DAG for the same days.",
                )


class Approval(HITLOperator):  # type: ignore[misc]
    """Ask for `Approve` or `Reject`, unless the profile has answered (`by_flag`) or there is no `version`."""

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
