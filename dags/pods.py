"""A training stage on Kubernetes, as one task: prepared and finished by the worker, trained in a pod of its own.

The pod gets a spec and the folders that it names, and no credentials; so what reads the lake or writes to MLflow stays
with the worker. A module of its own: the Kubernetes client costs a second that nobody else need pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException

from dags.commands import Commands, raise_for_exit_code
from infra.endings import signal_of
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
            command = ["-m", "training", "--spec", str(spec)]
            ended = _exit_code(self.pod)
            if signal_of(ended) == SIGKILL:
                limits = self.pod.spec.containers[0].resources.limits or {}
                raise_for_exit_code(ended, command, f"the limit of its pod is {limits.get('memory', 'not set')}")
            # A stage that could say nothing was taken away with its node.
            raise_for_exit_code(stage_exit_code(spec.parent, EXIT_TRANSIENT), command)
        self.run_command(self.finish)
        self.label_events(context)  # in this process, not in that of `execute`: the pod's wait lies between

    def on_kill(self) -> None:
        """Leave neither a process nor a pod behind."""
        self.stop_command()
        super().on_kill()


def _exit_code(pod: Any) -> int:
    """The exit code of a pod's container; 0 where Kubernetes does not know how it ended, as that of a pod that is gone.

    Where memory ran out the reason counts: the killed process may not have been the container's first.
    """
    statuses = (pod.status.container_statuses or []) if pod else []
    ended = next((status.state.terminated for status in statuses if status.name == "base"), None)
    if ended is None:
        return 0
    return -SIGKILL if ended.reason == "OOMKilled" else int(ended.exit_code)
