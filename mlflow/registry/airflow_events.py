"""Tells Airflow of a decision that was made on the command line, as the DAG `promote` does of those made there."""

from __future__ import annotations

from infra.airflow_client import AirflowClient
from infra.errors import DataError
from infra.ledger import Ledger
from infra.profile import Profile

_NEWEST = "next_item_samples"  # its newest day is the newest for which lists can be made


def announce(profile: Profile, model: str) -> str:
    """Make an event of the asset `<model>_decision` for the newest day of data; returns a sentence.

    Raises:
        AirflowApiError: Airflow cannot be reached, or does not know the asset.
        DataError: there is no day of data.
    """
    days = Ledger(profile).committed(_NEWEST)
    if not days:
        raise DataError("There is no day of data that could follow the decision.", where=_NEWEST)
    asset, day = decision_asset(model), max(days)
    AirflowClient.of(profile).announce(asset, day)
    return f"Airflow was told ({asset}, {day}): lists and report follow."


def decision_asset(model: str) -> str:
    """The asset of the decisions about `model`, as the DAGs name it."""
    return f"{model}_decision"
