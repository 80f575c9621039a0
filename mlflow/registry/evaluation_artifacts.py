"""What is known of a registered version: the run that made it, the ranks of its evaluation, its metrics."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd

from infra.errors import DataError
from registry.gates import Candidate
from registry.runs import lineage, metric_name, tag
from registry.values import read_ranks

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVALUATION = "evaluation"
RANKS = "eval_ranks"


def candidate(client: MlflowClient, model: str, version: str) -> Candidate:
    """Everything that a gate or a card wants of a version.

    Raises:
        DataError: the files of its evaluation are gone.
    """
    found = client.get_model_version(model, version)
    run = client.get_run(found.run_id)
    metrics = {metric_name(key): value for key, value in run.data.metrics.items()}
    return Candidate(version, _ranks(client, run.info.run_id), metrics, run.data.tags[tag("origin")])


def _ranks(client: MlflowClient, run_id: str) -> pd.DataFrame:
    place = f"{EVALUATION}/{RANKS}"
    names = [file.path for file in client.list_artifacts(run_id, place)]
    if not names:
        raise DataError("The ranks of a registered version are gone.", where=f"run {run_id}, {place}")
    with TemporaryDirectory() as scratch:
        return read_ranks([Path(client.download_artifacts(run_id, name, scratch)) for name in names])


def stage_folders(client: MlflowClient, model: str, version: str) -> set[Path]:
    """The folders of the stages that a version was made by."""
    run_id = client.get_model_version(model, version).run_id
    return {Path(run.data.tags[tag("out")]) for run in lineage(client, run_id)}


def snapshots_of(client: MlflowClient, model: str, version: str) -> dict[str, list[int]]:
    """Table to the snapshots behind a version, as noted when it was registered."""
    noted: dict[str, list[int]] = json.loads(client.get_model_version(model, version).tags.get(tag("snapshots"), "{}"))
    return noted
