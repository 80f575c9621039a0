"""A training stage on Kubernetes, as one task: prepared and finished by the worker, trained in a pod of its own.

The pod gets a spec and the folders that it names, and no credentials; so what reads the lake or writes to MLflow stays
with the worker. A module of its own: the Kubernetes client costs a second that nobody else need pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException

from dags.commands import Commands, judge
from infra.errors import EXIT_TRANSIENT
from infra.launch import stage_exit_code

_SPEC = "spec"


class StagePod(Commands, KubernetesPodOperator):  # type: ignore[misc]
    """Run `prepare`, the pod of the spec that it hands on, and `finish`; the pod's wait is deferred.

    A try that follows a failed `finish` starts the pod again, which finds its stage done and ends at once.
    """

    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "prepare", "finish")

    def __init__(
        self, *, prepare: Sequence[str], finish: Sequence[str], pod: Callable[[str], dict[str, Any]], **kwargs: Any
    ) -> None:
        super().__init__(deferrable=True, reattach_on_restart=True, on_finish_action="delete_pod", **kwargs)
        self.prepare, self.finish, self.pod_of = list(prepare), list(finish), pod

    def execute(self, context: Any) -> Any:
        """Prepare, start the pod (or find the one that a lost worker has started), and wait without a worker."""
        spec = self.run_command(self.prepare)[_SPEC]
        context["ti"].xcom_push(key=_SPEC, value=spec)
        self.pod_template_dict = self.pod_of(spec)
        super().execute(context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """The pod has ended: finish its stage, or fail as the stage did."""
        try:
            super().trigger_reentry(context, event)
        except AirflowException:
            self.log.exception("The pod failed.")
            spec = Path(context["ti"].xcom_pull(key=_SPEC))
            # A stage that could say nothing was taken away with its node.
            judge(stage_exit_code(spec.parent, EXIT_TRANSIENT), ["-m", "training", "--spec", str(spec)])
        self.run_command(self.finish)
        self.label_events(context)  # in this process, not in that of `execute`: the pod's wait lies between

    def on_kill(self) -> None:
        """Leave neither a process nor a pod behind."""
        self.stop_command()
        super().on_kill()
