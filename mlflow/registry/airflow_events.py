"""Tells Airflow of a decision that was made on the command line, as the DAG `promote` does of those made there."""

from __future__ import annotations

from common.assets import decision
from infra.airflow_client import AirflowClient
from infra.errors import DataError
from infra.ledger import Ledger
from infra.profile import Profile
from registry.evaluation_artifacts import snapshots_of
from registry.promotions import Promotions
from registry.store import connect


def announce(profile: Profile, model: str) -> str:
    """Make an event of the asset `<model>_decision` for the newest day of data; returns a sentence.

    That is the newest day of any table that the version of the last decision was made from.

    Raises:
        AirflowApiError: Airflow cannot be reached, or does not know the asset.
        DataError: nothing was decided, or there is no day of data.
    """
    decided = Promotions(profile).history(model)
    if not decided:
        raise DataError(f"Nothing was decided about {model!r}.", do="See: python -m registry history")
    tables = sorted(snapshots_of(connect(profile), model, decided[-1].to_version))
    ledger = Ledger(profile)
    days = [day for table in tables for day in ledger.committed(table)]
    if not days:
        where = ", ".join(tables) or f"{model} version {decided[-1].to_version}"
        raise DataError("There is no day of data that could follow the decision.", where=where)
    asset, day = decision(model).name, max(days)
    AirflowClient.of(profile).announce(asset, day)
    return f"Airflow was told ({asset}, {day}): lists and report follow."
