"""Which systems an installation runs: those that its profile names, as its preset has them."""

from __future__ import annotations

from pathlib import Path

from common.errors import DataError
from common.pipelines import SYSTEMS, Pipeline, read_pipelines, systems
from infra.airflow_env import dag_files
from infra.profile import Profile


def declared_systems(profile: Profile, root: Path = SYSTEMS) -> tuple[list[Pipeline], list[DataError]]:
    """Those that can be used, and why each of the others cannot: a fault of one takes nothing from another.

    Where the profile names none, all that have a stage under its preset.
    """
    chosen = systems(root) if profile.systems is None else profile.systems
    found, faults = read_pipelines(chosen, root, {path.stem: str(path) for path in dag_files()})
    usable = []
    for declared in found:
        try:
            usable.append(declared.under(profile.training_preset))
        except DataError as fault:
            if profile.systems is not None:
                faults.append(fault)
    return usable, faults
