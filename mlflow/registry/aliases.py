"""MLflow's aliases as views of the ledger: `champion` is its last champion, `challenger` the newest that may follow it.

A decision is first a ledger row, then an alias. A kill in between leaves an alias behind; every command begins with
`sync_aliases`, which repairs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.errors import DataError
from infra.profile import Profile
from registry.gate_report import GateReport
from registry.promotions import Promotions
from registry.runs import tag
from registry.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
GATE_TAG = tag("gate_report")


def versions(client: MlflowClient, model: str) -> list[ModelVersion]:
    """The registered versions of `model`, oldest first.

    Raises:
        DataError: there are none.
    """
    found = list(client.search_model_versions(f"name='{model}'", max_results=1000))
    if not found:
        raise DataError(f"No version of {model!r} is registered.", do="Train one, and register it.")
    return sorted(found, key=lambda version: int(version.version))


def gate_report(client: MlflowClient, model: str, version: str) -> GateReport | None:
    """The gate report that is attached to a version, if its gate was held."""
    text = client.get_model_version(model, version).tags.get(GATE_TAG)
    return GateReport.from_json(text) if text else None


def require_champion(client: MlflowClient, model: str, version: str) -> None:
    """Refuse a champion that MLflow does not have.

    Raises:
        DataError: it is gone.
    """
    if version not in _registered(client, model):
        raise DataError(
            f"Champion {version} of the ledger is gone from MLflow.",
            where=f"model {model!r}",
            why="Its version was deleted there, and the ledger of promotions still names it.",
            do='Go back to the champion before: python -m registry rollback --reason "...". Or name another version: '
            'python -m registry promote --version N --override --reason "...".',
        )


def _registered(client: MlflowClient, model: str) -> set[str]:
    return {str(found.version) for found in client.search_model_versions(f"name='{model}'", max_results=1000)}


def newest_undecided(client: MlflowClient, ledger: Promotions, model: str) -> str | None:
    """The newest version, unless a decision about it or about a newer one has been made."""
    newest = str(versions(client, model)[-1].version)
    decided = [int(decision.to_version) for decision in ledger.history(model)]
    return newest if int(newest) > max(decided, default=0) else None


def aliases(client: MlflowClient, model: str) -> dict[str, str]:
    """Alias to version. Some of MLflow's stores answer with numbers."""
    return {alias: str(version) for alias, version in client.get_registered_model(model).aliases.items()}


def sync_aliases(client: MlflowClient, ledger: Promotions, model: str) -> dict[str, str]:
    """Make the aliases say what the ledger says; returns the aliases that changed (to the version, or to `(none)`).

    A champion that is gone from MLflow has no alias, so that the commands that mend this can be run.
    """
    present, there = aliases(client, model), _registered(client, model)
    changed: dict[str, str] = {}
    for alias, named in _views(client, ledger, model).items():
        version = named if named in there else None
        if present.get(alias) == version:
            continue
        if version is None:
            client.delete_registered_model_alias(model, alias)
        else:
            client.set_registered_model_alias(model, alias, version)
        changed[alias] = version or "(none)"
    return changed


def active_versions(profile: Profile, model: str) -> dict[str, str]:
    """Alias to version as the ledger has it now, the champion first; none before anything is registered.

    Raises:
        DataError: the champion of the ledger is gone from MLflow.
    """
    client, ledger = connect(profile), Promotions(profile)
    if champion := ledger.champion(model):
        require_champion(client, model, champion)
    elif not _registered(client, model):
        return {}
    return {alias: version for alias, version in _views(client, ledger, model).items() if version}


def _views(client: MlflowClient, ledger: Promotions, model: str) -> dict[str, str | None]:
    """A challenger is undecided and has failed nothing: what fails is not served beside the champion."""
    candidate = newest_undecided(client, ledger, model)
    report = gate_report(client, model, candidate) if candidate else None
    return {
        CHAMPION: ledger.champion(model),
        CHALLENGER: candidate if report is not None and report.may_be_played else None,
    }
