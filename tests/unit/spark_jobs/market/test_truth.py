"""The market's truth: hand-worked lists, all lists of a few items, and many plays of the same lists agree with it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.market import choices
from spark_jobs.market.choices import choose
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import logged
from spark_jobs.market.truth import expected_clicks, most_clicks, random_clicks
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import START, items, parameters, world

PEOPLE = 120


def told(market: World, people: int = PEOPLE) -> dict[str, pd.DataFrame]:
    return {
        name: pa.Table.from_batches(batches).to_pandas()
        for name, batches in logged(market, np.arange(people)).batches.items()
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return told(world())


def test_the_clicks_of_a_list_by_hand() -> None:
    """.5, then .8 (1 - .6 * .5) = .56 of .25, then .56 * .8 (1 - .6 * .25) = .3808 of 1."""
    chances, patience = np.array([[0.5, 0.25, 1.0]]), np.array([0.8])
    assert expected_clicks(chances, patience, 0.6) == pytest.approx(0.5 + 0.56 * 0.25 + 0.3808)
    # The best two are 1 and .5: 1 + .8 (1 - .6) * .5.
    assert most_clicks(chances, 2, patience, 0.6) == pytest.approx(1.16)
    # Lists of one by chance: the mean of them.
    assert random_clicks(chances, chances > 0, 1, patience, 0.6) == pytest.approx((0.5 + 0.25 + 1.0) / 3)


CHANCE = st.floats(0.0, 1.0)


@given(st.lists(CHANCE, min_size=1, max_size=5), st.integers(1, 6), CHANCE, CHANCE)
def test_no_list_is_better_than_the_oracle_and_chance_is_the_mean_of_all(
    chances: list[float], length: int, patience: float, done: float
) -> None:
    every = np.array(list(permutations(chances, min(length, len(chances)))))
    clicks = expected_clicks(every, np.full(len(every), patience), done)
    one, own = np.array([chances]), np.array([patience])
    assert most_clicks(one, length, own, done)[0] == pytest.approx(clicks.max(), abs=1e-12)
    found = random_clicks(one, np.ones_like(one, dtype=bool), length, own, done)[0]
    assert found == pytest.approx(clicks.mean(), abs=1e-12)


def test_people_with_fewer_items_beside_others_are_counted_as_alone() -> None:
    chances, patience = np.random.default_rng(0).random((6, 7)), np.linspace(0.1, 0.9, 6)
    there = np.array([[n < many for n in range(7)] for many in (3, 0, 7, 1, 5, 7)])[:, ::-1]
    together = random_clicks(chances, there, 4, patience, 0.6)
    for row in range(6):
        own = chances[row][there[row]][None, :]
        alone = random_clicks(own, np.ones_like(own, dtype=bool), 4, patience[[row]], 0.6)
        assert together[row] == pytest.approx(alone[0])
    assert together[1] == 0.0


def test_plays_of_a_list_agree_with_its_expected_clicks() -> None:
    """Simulated by `choose` with many people's luck, as no formula knows it."""
    own, worth = parameters().choices, np.array([3.5, 0.2, 2.6, 1.8])
    for patience in (0.6, 0.95):
        plays = 40_000
        visits = (np.arange(plays), np.zeros(plays, dtype=np.int64))
        shown = np.tile(np.arange(4), (plays, 1))
        lists = np.tile(worth, (plays, 1))
        money = np.full(plays, 100.0)
        done = choose(
            lists, shown, np.ones(lists.shape), np.full(plays, patience), money, visits, own, Draws(3)
        ).clicked.sum(axis=1)
        said = expected_clicks(choices.chance_of_click(worth, own.click)[None, :], np.array([patience]), own.done)[0]
        assert done.mean() == pytest.approx(said, abs=4 * done.std() / np.sqrt(plays))


def test_the_clicks_of_a_market_are_those_that_were_expected() -> None:
    """All of its lists together, within four standard errors."""
    market = world()
    truth = told(market, 1_500)
    clicks, requests = truth["events"], truth["true_requests"]
    count = int((clicks["event_type"] == "click").sum())
    assert count == pytest.approx(requests["clicks_shown"].sum(), abs=4 * np.sqrt(len(requests)))
    assert abs(count - requests["clicks_oracle"].sum()) > 20 * np.sqrt(len(requests))


def test_every_request_and_place_has_its_truth(tables: dict[str, pd.DataFrame]) -> None:
    places, shown, requests = tables["true_exposures"], tables["exposures"], tables["true_requests"]
    keys = ["request_id", "position", "exposure_time"]
    assert places[keys].equals(shown[keys])
    assert set(shown["request_id"]) == set(requests["request_id"][~requests["searched"]])
    assert requests["request_id"].is_unique and requests["searched"].any()
    market = world()
    said = choices.chance_of_click(places["utility"].to_numpy(), market.parameters.choices.click)
    assert np.array_equal(places["click_chance"], said)
    assert (requests["clicks_oracle"] >= requests["clicks_shown"] - 1e-12).all()
    assert (requests["clicks_oracle"] >= requests["clicks_random"] - 1e-12).all()
    listed = requests[~requests["searched"]]
    assert listed["clicks_random"].mean() < listed["clicks_shown"].mean() < listed["clicks_oracle"].mean()


def test_the_expected_clicks_follow_from_places_and_patience(tables: dict[str, pd.DataFrame]) -> None:
    """A reader of the tables finds the value of a list by the formula that they are documented with."""
    market, people = world(), tables["true_people"].set_index("user_id")["patience"]
    requests = tables["true_requests"].set_index("request_id")
    for request, places in tables["true_exposures"].groupby("request_id"):
        known = requests.loc[request]
        patience = people[[known["user_id"]]].to_numpy()
        chances = places.sort_values("position")["click_chance"].to_numpy()[None, :]
        assert expected_clicks(chances, patience, market.parameters.choices.done)[0] == pytest.approx(
            known["clicks_shown"]
        )


def test_a_wish_is_one_of_the_persons_tastes_and_shares_are_whole(tables: dict[str, pd.DataFrame]) -> None:
    tastes, people = tables["true_tastes"], tables["true_people"]
    own = set(zip(tastes["user_id"], tastes["item_id"], strict=True))
    requests = tables["true_requests"]
    assert set(zip(requests["user_id"], requests["wish_item_id"], strict=True)) <= own
    assert tastes.groupby("user_id")["share"].sum().to_numpy() == pytest.approx(np.ones(PEOPLE))
    assert people["user_id"].tolist() == list(range(PEOPLE)) and (people["start_time"] == START).all()


def test_people_whom_nothing_drives_away_come_as_often_as_it_is_told() -> None:
    truth = told(world(choices__leave=-50.0))
    people = truth["true_people"]
    often = truth["true_requests"].groupby("user_id").size().reindex(people["user_id"], fill_value=0).to_numpy()
    assert people["newcomer"].all() and often.min() == 1
    assert often.sum() == pytest.approx(people["visits"].clip(lower=1.0).sum(), rel=0.1)
    assert np.corrcoef(often, people["visits"])[0, 1] > 0.85


def test_the_oracle_shows_what_is_wished_for_and_was_not_offered() -> None:
    """A shop that knows no more than its list has places: the best list has the things near the wish beside them."""
    market = world(items(400), logging__candidates=10, people__patience=0.5, choices__click=5.0)
    truth = told(market, 60)
    requests, patience = (
        truth[name].set_index(key) for name, key in (("true_requests", "request_id"), ("true_people", "user_id"))
    )
    better = []
    for request, places in truth["true_exposures"].groupby("request_id"):
        known = requests.loc[request]
        own, chances = patience["patience"][[known["user_id"]]].to_numpy(), places["click_chance"].to_numpy()[None, :]
        better.append(known["clicks_oracle"] / most_clicks(chances, 10, own, market.parameters.choices.done)[0])
    assert min(better) > 1 - 1e-12 and np.mean(better) > 1.5
