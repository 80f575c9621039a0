"""How good hints were: the closed form beside all lists of a few queries, and beside what many people clicked."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from spark_jobs.market.policies import Tabled, ordered
from spark_jobs.market.truth import expected_clicks
from spark_jobs.market.visits import World
from tests.unit.spark_jobs.market.kit import items, tables, world

PEOPLE = 1_200


@cache
def log() -> dict[str, pd.DataFrame]:
    return tables(world(hints__share=1.0), PEOPLE)


def chances(market: World, worth: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(market.parameters.hints.click - worth)))


def test_every_request_that_was_shown_hints_has_its_truth_and_no_other() -> None:
    found = tables(world(), 200)
    truth, shown = found["true_hints"], found["hint_exposures"].drop_duplicates("request_id")
    assert truth["request_id"].is_unique and len(truth) < len(found["true_requests"])
    told = truth[["request_id", "user_id", "request_time"]].sort_values("request_id", ignore_index=True)
    seen = shown[["request_id", "user_id", "exposure_time"]].rename(columns={"exposure_time": "request_time"})
    pd.testing.assert_frame_equal(told, seen.sort_values("request_id", ignore_index=True))
    requests = found["true_requests"].set_index("request_id")
    assert (requests.loc[truth["request_id"], "request_time"].to_numpy() == truth["request_time"]).all()
    assert "true_hints" not in tables(world(hints__share=0.0), 50)


def test_the_clicks_of_a_market_are_those_that_were_expected_of_its_hints() -> None:
    """All hints together, within four standard errors; people tire of them from visit to visit."""
    found = log()
    truth, searches = found["true_hints"], found["searches"]
    clicked = truth["request_id"].isin(searches.loc[searches["source"] == "hint", "request_id"])
    off = clicked - truth["clicks_shown"]
    assert len(off) > 5_000 and abs(off.sum()) < 4 * np.sqrt(
        (truth["clicks_shown"] * (1 - truth["clicks_shown"])).sum()
    )
    assert abs(clicked.sum() - truth["clicks_oracle"].sum()) > 10 * np.sqrt(clicked.sum())
    # By itself in those that were thought good and in those that were thought bad.
    good = truth["clicks_shown"] > truth["clicks_shown"].median()
    for part in (good, ~good):
        assert abs(off[part].mean()) < 4 * off[part].std() / np.sqrt(part.sum())
    assert clicked[good].mean() > 1.5 * clicked[~good].mean()


def test_the_shops_hints_stand_between_chance_and_the_best() -> None:
    truth = log()["true_hints"]
    assert (truth["clicks_oracle"] >= truth["clicks_shown"] - 1e-12).all()
    assert (truth["clicks_oracle"] >= truth["clicks_random"] - 1e-12).all()
    assert 1.1 * truth["clicks_random"].mean() < truth["clicks_shown"].mean() < 0.9 * truth["clicks_oracle"].mean()


def test_no_three_are_better_than_the_oracle_and_chance_is_the_mean_of_all_threes() -> None:
    """Of each request of a shop of three things, whose queries are few enough to show all orders of three."""
    market, checked = world(items(3), hinting__candidates=6, hints__share=1.0), 0
    truth = tables(market, 20)["true_hints"].set_index("request_id")
    for visit in market.visits(market.people(np.arange(20)), market.logging):
        hints, box = visit.hints, market.search_box
        assert len(hints.rows) == len(visit.number)
        for row, request in enumerate(visit.requests):
            known, patience = truth.loc[request], hints.asked.people.patience[[row]]
            own = hints.asked.people.chosen(np.array([row]))
            one = type(hints.asked)(
                own, visit.session, *(getattr(hints.asked, name)[[row]] for name in ("day", "clicked", "bought")),
                hints.asked.shown[[row]], hints.asked.wish[[row]],
            )  # fmt: skip
            offered = np.unique(hints.offered[row][hints.offered[row] >= 0])
            wished = np.unique(box.wished(one)[box.wished(one) >= 0])
            clicks = {}
            for name, among in (("clicks_random", offered), ("clicks_oracle", np.union1d(offered, wished))):
                chance = chances(market, box.worth(one, among[None, :]) - hints.loss[row])[0]
                every = np.array(list(permutations(chance, min(3, len(among)))))
                clicks[name] = expected_clicks(every, np.repeat(patience, len(every)), 1.0)
            assert known["clicks_random"] == pytest.approx(clicks["clicks_random"].mean(), abs=1e-12)
            assert known["clicks_oracle"] == pytest.approx(clicks["clicks_oracle"].max(), abs=1e-12)
            checked += 1
    assert checked > 50


def test_plays_of_the_same_hints_agree_with_their_expected_clicks() -> None:
    """Many people, each with the same three hints, patience and tiredness of their own: by thirds of what is said."""
    market = world(hints__share=1.0, hints__tiring=1.0)
    people = market.people(np.arange(6_000))
    queries = np.tile([3, 40, 90], (len(people), 1))
    policy = Tabled("hints", people.number, queries, np.broadcast_to(ordered(np.arange(3)), queries.shape))
    said, clicked, lost = [], [], []
    for visit in market.visits(people, market.logging, policy):
        hints = visit.hints
        chance = chances(market, hints.worth - hints.loss[:, None])
        # By hand: the second is looked at where the first was not clicked and patience lasted, and so on.
        first, second, third = chance.T
        on = hints.asked.people.patience
        said.append(first + on * (1 - first) * (second + on * (1 - second) * third))
        clicked.append(hints.clicked.any(axis=1))
        lost.append(hints.loss)
    expected, happened = np.concatenate(said), np.concatenate(clicked)
    assert np.concatenate(lost).max() > 0.5
    for part in np.array_split(np.argsort(expected), 3):
        off = happened[part] - expected[part]
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
