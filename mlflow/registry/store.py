"""The way into MLflow: importing it costs seconds, so nothing here does so before it is asked to."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from common.folders import make_folder
from infra import telemetry
from infra.profile import Profile

if TYPE_CHECKING:
    from mlflow import MlflowClient


def connect(profile: Profile) -> MlflowClient:
    """A client of the profile's tracking store, which is also made the one that MLflow's own functions use."""
    telemetry.apply()
    # A model names its requirements itself; a uv project that happens to be around is none of its business.
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)

    uri = profile.mlflow.tracking_uri
    if uri.startswith("sqlite:"):
        make_folder(Path(make_url(uri).database or "").parent)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def experiment(client: MlflowClient, profile: Profile, system: str) -> str:
    """The id of a system's experiment. Its artifacts get an explicit place: MLflow's default is the working folder."""
    found = client.get_experiment_by_name(system)
    if found is not None:
        return str(found.experiment_id)
    root = profile.mlflow.artifact_root
    uri = root.rstrip("/") if "://" in root else Path(root).resolve().as_uri()
    place = f"{uri}/{system}"
    note = f"One run per stage of `training/{system}/pipeline.yaml` and training set; `plumbline.origin`: on what data."
    return str(client.create_experiment(system, artifact_location=place, tags={"mlflow.note.content": note}))
