"""The DAG bag, parsed once, as a fresh installation with the local profile parses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.airflow_env import airflow_environment
from infra.profile import load_profile


@pytest.fixture(scope="session")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Every DAG of the checkout, as the local profile builds them."""
    home = tmp_path_factory.mktemp("home")
    profile = load_profile("local", environ={"PLUMBLINE__HOME": str(home)})
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AIRFLOW", "PLUMBLINE"))]:
            patch.delenv(name)
        for name, value in airflow_environment(profile).items():
            patch.setenv(name, value)
        yield _parse(Path(airflow_environment(profile)["AIRFLOW__CORE__DAGS_FOLDER"]))


def _parse(folder: Path) -> object:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(folder, safe_mode=False)
