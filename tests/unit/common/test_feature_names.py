"""A column tells what it is a feature of."""

from __future__ import annotations

import pytest

from common.feature_names import entity_of


@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("user_daily__events_30d", "user"),
        ("user__segment", "user"),
        ("item_daily__events_30d", "item"),
        ("users_daily__events", "users"),
        ("user_id", ""),
        ("user_daily__", ""),
        ("__user", ""),
        ("", ""),
    ],
)
def test_a_full_name_says_it_and_no_other_name_does(name: str, entity: str) -> None:
    assert entity_of(name) == entity
