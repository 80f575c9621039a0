"""What our client sends, held against the API server's own models and code: a change of Airflow shows here."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from infra.airflow_client import AirflowClient
from infra.airflow_env import Pool


class Recorder(AirflowClient):
    """Knows the pool `old`; keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__("http://nowhere", "admin", "x")
        self.sent: dict[str, Any] = {}

    def _send(self, method: str, path: str, body: Any, headers: Any) -> Any:
        if method == "GET":
            return {"pools": [{"name": "old"}], "assets": [{"name": "toy_decision", "id": 7}], "total_entries": 1}
        self.sent[f"{method} {path}"] = body
        return {"access_token": "t"}


@pytest.fixture
def sent(bag: object) -> dict[str, Any]:  # the bag's environment keeps Airflow's own imports off the real home
    client = Recorder()
    client.ensure_pools([Pool(name=name, slots=3, description="why", include_deferred=True) for name in ("old", "new")])
    return client.sent


def test_a_new_pool_is_one_that_airflow_accepts(sent: dict[str, Any]) -> None:
    from airflow.api_fastapi.core_api.datamodels.pools import PoolBody

    made = PoolBody.model_validate(sent["POST /api/v2/pools"])
    assert (made.pool, made.slots, made.include_deferred) == ("new", 3, True)


def test_a_pool_that_is_there_is_changed_by_airflows_own_code(sent: dict[str, Any]) -> None:
    from airflow.api_fastapi.core_api.datamodels.pools import PoolPatchBody
    from airflow.api_fastapi.core_api.services.public.pools import update_orm_from_pydantic
    from airflow.models.pool import Pool as Stored

    body = PoolPatchBody.model_validate(sent["PATCH /api/v2/pools/old"])
    stored = Stored(pool="old", slots=1, description="", include_deferred=False)
    changed = update_orm_from_pydantic(stored, body, None)
    assert (changed.pool, changed.slots, changed.description, changed.include_deferred) == ("old", 3, "why", True)


def test_an_asset_event_is_one_that_airflow_accepts(bag: object) -> None:
    from airflow.api_fastapi.core_api.datamodels.assets import CreateAssetEventsBody

    client = Recorder()
    client.announce("toy_decision", date(2018, 1, 5))
    made = CreateAssetEventsBody.model_validate(client.sent["POST /api/v2/assets/events"])
    assert (made.asset_id, made.partition_key) == (7, "2018-01-05")
