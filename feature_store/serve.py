"""Feast's own feature server over the online store, on loopback.

Inputs of the on-demand view go inside `entities`, beside the ids:
`{"feature_service": "next_item_v1", "entities": {"user_id": ["7"], "item_id": ["3"], "as_of_unix": [1525132800]}}`.
"""

from __future__ import annotations

from feature_store.definitions import DAILY_VIEWS, feast_objects
from feature_store.sources import Pinned, pin, sources_of
from feature_store.store import apply, opened_store, single_writer
from infra.lake import Lake
from infra.profile import Profile

HOST = "127.0.0.1"


def apply_definitions(profile: Profile) -> list[Pinned]:
    """Bring the profile's registry to the definitions, over the newest snapshots; checked afterwards."""
    lake = Lake(profile)
    pins = [pin(lake, view.table) for view in DAILY_VIEWS]
    with single_writer(profile), opened_store(profile) as store:
        apply(store, feast_objects(sources_of(profile, pins)))
    return pins


def serve(profile: Profile) -> None:
    """Answer on the profile's port until stopped; starts with an empty online store, too."""
    apply_definitions(profile)
    with opened_store(profile) as store:
        store.serve(HOST, profile.ports.feast, no_access_log=True, workers=1)
