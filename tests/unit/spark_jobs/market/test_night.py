"""Replay and card of a night share one shop, and only where it is the same one."""

from __future__ import annotations

import numpy as np
import pytest

from spark_jobs.market import night, shop
from spark_jobs.market.night import world_of
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from tests.unit.spark_jobs.market.kit import items


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items had their neighbours computed, each time."""
    counted: list[int] = []
    nearest = shop._nearest

    def counting(vectors: shop.Vectors, count: int) -> shop.Ints:
        counted.append(len(vectors))
        return nearest(vectors, count)

    monkeypatch.setattr(shop, "_nearest", counting)
    night._shop.cache_clear()
    return counted


def test_the_same_catalogue_in_another_order_has_the_neighbours_it_had(made: list[int]) -> None:
    catalogue, own = items().assign(source="shop"), Parameters.read()
    played = world_of(catalogue, own, 7, 10)
    carded = world_of(catalogue.sample(frac=1.0, random_state=3), own, 7, 1825)
    assert made == [120] and carded.shop is played.shop
    assert (played.horizon.days, carded.horizon.days) == (10, 1825)
    plain = Shop.of(catalogue, own, 7)
    np.testing.assert_array_equal(plain.near, played.shop.near)
    np.testing.assert_array_equal(plain.appeal, played.shop.appeal)


@pytest.mark.parametrize("other", ["catalogue", "setting", "seed"])
def test_another_shop_is_not_taken_for_the_one_before(made: list[int], other: str) -> None:
    catalogue, own = items().assign(source="shop"), Parameters.read()
    first = world_of(catalogue, own, 7, 10).shop
    changed = catalogue.assign(title=[*catalogue["title"][:-1], "лампа"]) if other == "catalogue" else catalogue
    assumed = Parameters.read(setting="reviews") if other == "setting" else own
    second = world_of(changed, assumed, 8 if other == "seed" else 7, 10).shop
    assert len(made) == 2 and second is not first
