"""Which systems an installation runs: those that its profile names, as its preset has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import DataError
from common.faults import unknown_assets
from common.pipelines import SYSTEMS, Pipeline, read_pipelines, systems
from infra.airflow_env import dag_files
from infra.profile import CHECKOUT, Profile


def stages_of(profile: Profile, system: str) -> Path:
    """The folder of all stages that a system has run here."""
    return profile.home / "stages" / system


def oldest_first(profile: Profile, chosen: Iterable[str]) -> list[str]:
    """Those that have run here before the others, so that a new system takes no name from them."""
    return sorted(dict.fromkeys(chosen), key=lambda system: not stages_of(profile, system).is_dir())


def declared_systems(profile: Profile, root: Path = SYSTEMS) -> tuple[list[Pipeline], list[DataError]]:
    """Those that can be used, and why each of the others cannot: a fault of one takes nothing from another.

    Where the profile names none, all that have a stage under its preset.
    """
    taken = {path.stem: str(path) for path in dag_files()}
    every, faults_of_every = read_pipelines(oldest_first(profile, systems(root)), root, taken)
    # A system may wait for a model of one that runs elsewhere. What a faulty declaration makes is not known.
    models = None if faults_of_every else {model for declared in every for model in declared.models}
    preset, usable = profile.training_preset, list[Pipeline]()
    if profile.systems is None:
        found, faults = [declared for declared in every if preset in declared.presets], faults_of_every
    else:
        found, faults = read_pipelines(oldest_first(profile, profile.systems), root, taken)
    for declared in found:
        try:
            _refuse_unknown(declared, models, root)
            usable.append(declared.under(preset))
        except DataError as fault:
            faults.append(fault)
    return usable, faults


def _refuse_unknown(declared: Pipeline, models: set[str] | None, root: Path) -> None:
    # By the contracts' names alone: to read one loads pyarrow, which costs each parse of a DAG file a second.
    tables = {path.stem for path in (CHECKOUT / "spark_jobs" / "contracts").glob("*.yaml")}
    if vain := list(unknown_assets(declared, models, tables)):
        where = str(root / declared.system / "pipeline.yaml")
        do = "Correct the name; a new table needs a contract in spark_jobs/contracts."
        raise DataError("The declaration names what there is not.", where=where, why="; ".join(vain), do=do)
