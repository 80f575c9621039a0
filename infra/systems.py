"""Which systems an installation runs: those that its profile names, as its preset has them."""

from __future__ import annotations

from pathlib import Path

from common.errors import DataError
from common.faults import unknown_awaited
from common.pipelines import SYSTEMS, Pipeline, read_pipelines, systems
from infra.airflow_env import dag_files
from infra.profile import CHECKOUT, Profile


def declared_systems(profile: Profile, root: Path = SYSTEMS) -> tuple[list[Pipeline], list[DataError]]:
    """Those that can be used, and why each of the others cannot: a fault of one takes nothing from another.

    Where the profile names none, all that have a stage under its preset.
    """
    every, faults_of_every = read_pipelines(systems(root), root, {path.stem: str(path) for path in dag_files()})
    models = {model for declared in every for model in declared.models}  # a system may wait for one that runs elsewhere
    preset, usable = profile.training_preset, list[Pipeline]()
    if profile.systems is None:
        found, faults = [declared for declared in every if preset in declared.presets], faults_of_every
    else:
        found, faults = read_pipelines(profile.systems, root, {path.stem: str(path) for path in dag_files()})
    for declared in found:
        try:
            _refuse_vain_waits(declared, models, root)
            usable.append(declared.under(preset))
        except DataError as fault:
            faults.append(fault)
    return usable, faults


def _refuse_vain_waits(declared: Pipeline, models: set[str], root: Path) -> None:
    # By the contracts' names alone: to read one loads pyarrow, which costs each parse of a DAG file a second.
    tables = {path.stem for path in (CHECKOUT / "spark_jobs" / "contracts").glob("*.yaml")}
    if vain := list(unknown_awaited(declared, models, tables)):
        raise DataError("A system waits in vain.", where=str(root / declared.system), why="; ".join(vain))
