"""What is known of a registered version: the run that made it, the values of its evaluation, its metrics."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from registry.gates import Candidate
from registry.runs import lineage, metric_name, tag
from registry.values import read_values

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVALUATION = "evaluation"
VALUES = "eval_values"


def candidate(client: MlflowClient, model: str, version: str) -> Candidate:
    """Everything that a gate or a card wants of a version.

    A version of before evaluations left values has none: it is served as it was, and a gate says that it cannot be met.
    """
    found = client.get_model_version(model, version)
    run = client.get_run(found.run_id)
    metrics = {metric_name(key): value for key, value in run.data.metrics.items()}
    names = [file.path for file in client.list_artifacts(run.info.run_id, f"{EVALUATION}/{VALUES}")]
    with TemporaryDirectory() as scratch:
        values = read_values([Path(client.download_artifacts(run.info.run_id, name, scratch)) for name in names])
    return Candidate(version, values, metrics, run.data.tags[tag("origin")])


def stage_folders(client: MlflowClient, model: str, version: str) -> set[Path]:
    """The folders of the stages that a version was made by."""
    run_id = client.get_model_version(model, version).run_id
    return {Path(run.data.tags[tag("out")]) for run in lineage(client, run_id)}


def snapshots_of(client: MlflowClient, model: str, version: str) -> dict[str, list[int]]:
    """Table to the snapshots behind a version, as noted when it was registered."""
    noted: dict[str, list[int]] = json.loads(client.get_model_version(model, version).tags.get(tag("snapshots"), "{}"))
    return noted
