"""The way into MLflow: importing it costs seconds, so nothing here does so before it is asked to."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from common.folders import make_folder
from infra import airflow_env, processes, telemetry
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

    _make_database(profile)
    uri = profile.mlflow.tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def serve(profile: Profile) -> None:
    """Become MLflow's own server of the profile's tracking store, on loopback."""
    telemetry.apply()
    _make_database(profile)
    address = ["--host", airflow_env.HOST, "--port", str(profile.ports.mlflow)]
    kept = profile.mlflow
    store = ["--backend-store-uri", kept.tracking_uri, "--default-artifact-root", kept.artifact_root]
    argv = processes.python("mlflow", "server", *address, "--workers", "1", *store)
    os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted


def _make_database(profile: Profile) -> None:
    """Make the tables of a tracking store in a file, all or none, where there is no file yet.

    MLflow would make them in dozens of steps that it does not lock: two processes at once, or one that is killed, leave
    a file that no later start can use.
    """
    uri = make_url(profile.mlflow.tracking_uri)
    if uri.get_backend_name() != "sqlite" or not uri.database:
        return
    file = Path(uri.database)
    if file.exists():
        return
    make_folder(file.parent)
    scratch = file.with_name(f".{file.name}.new")
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return
        for left in file.parent.glob(f"{scratch.name}*"):  # a killed one, and its journal
            left.unlink()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        beside = uri.set(database=str(scratch)).render_as_string(hide_password=False)
        SqlAlchemyStore(beside, profile.mlflow.artifact_root).engine.dispose()
        scratch.replace(file)


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
