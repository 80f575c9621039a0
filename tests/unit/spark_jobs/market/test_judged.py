"""Scores beside the truth: a list by hand, and a market in which who knows more stands higher."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from infra.errors import DataError
from spark_jobs.market.judged import Judged, held, told
from tests.unit.spark_jobs.market.kit import tables, world

pytestmark = pytest.mark.unit
SHOWN = pd.DataFrame(
    {"request_id": ["r"] * 4 + ["s"] * 2, "position": [1, 2, 3, 4, 1, 2], "user_id": ["u"] * 4 + ["v"] * 2}
).assign(item_id=list("abcdab"))
TRUTH = SHOWN[["request_id", "position"]].assign(utility=[1.0, 2.0, 3.0, 4.0, 9.0, 0.0])
PAIRS = pd.DataFrame({"request_id": ["r", "r", "s", "gone"], "preferred_item_id": list("dcbb")}).assign(
    other_item_id=list("abaa")
)


def figures(judged: Judged) -> dict[str, tuple[float, float]]:
    return {row.name: (row.pairs.value, row.correlation.value) for row in judged.rows}


def test_two_lists_by_hand() -> None:
    """s has two places: its pair counts, its order does not. Of r, `half` has 1 - 6 * 2 / (4 * 15) = .8."""
    scores = SHOWN.assign(half=[1, 3, 2, 4, 7, 8], same=5, unlike=[4, 3, 2, 1, 1, 2])
    found = held(scores, TRUTH, PAIRS, seed=1)
    assert (found.pairs, found.requests, found.people) == (3, 1, 1)
    expected = {
        "half": (2 / 3, 0.8),
        "same": (0.5, 0.0),
        "unlike": (1 / 3, -1.0),
        "list": (0.0, -1.0),
        "utility": (2 / 3, 1.0),
    }
    assert figures(found) == {name: pytest.approx(both) for name, both in expected.items()}
    assert told(found)[2].startswith("| half | 0.667 [") and told(found)[2].endswith("| 0.800 [0.800, 0.800] |")


def test_rows_in_any_order_give_the_same() -> None:
    scores, rng = SHOWN.assign(half=[1, 3, 2, 4, 7, 8]), np.random.default_rng(3)
    mixed = [frame.iloc[rng.permutation(len(frame))] for frame in (scores, TRUTH, PAIRS)]
    assert held(*mixed, seed=1) == held(scores, TRUTH, PAIRS, seed=1)


def test_in_a_market_who_knows_the_utility_is_right_most_and_the_order_shown_never() -> None:
    """Noise on the utility costs both figures; the utility itself is no certainty: people draw by chance."""
    found = tables(world(), people=300)
    shown = found["exposures"][["request_id", "position", "user_id", "item_id", "exposure_time"]].astype(
        {"request_id": str, "user_id": str, "item_id": str}
    )
    truth = found["true_exposures"].astype({"request_id": str})[["request_id", "position", "utility"]]
    pairs = clicked_over_passed(shown, found["events"])
    noise = np.random.default_rng(1).normal(size=len(shown))
    scores = shown.drop(columns="exposure_time").merge(truth, on=["request_id", "position"])
    scores = scores.assign(near=scores["utility"] + 2 * noise, chance=noise).drop(columns="utility")
    judged = held(scores, truth, pairs, seed=1)

    assert judged.pairs > 100
    of = figures(judged)
    assert of["list"][0] == 0.0 and of["utility"][1] == 1.0
    for figure in (0, 1):
        assert of["utility"][figure] > of["near"][figure] + 0.05 and of["near"][figure] > of["chance"][figure] + 0.05
    assert 0.6 < of["utility"][0] < 1.0 and abs(of["chance"][1]) < 0.05


def clicked_over_passed(shown: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    done = events.astype({"user_id": str, "item_id": str})[["user_id", "item_id", "event_time"]].assign(clicked=True)
    both = shown.merge(done, on=["user_id", "item_id"], how="left")
    late = both["event_time"] - both["exposure_time"]
    both["clicked"] = both["clicked"].notna() & late.between(0, 30 * 60_000_000)
    each = both.groupby(["request_id", "position", "item_id"], as_index=False)["clicked"].any()
    pairs = each[each["clicked"]].merge(each[~each["clicked"]], on="request_id", suffixes=("_x", "_y"))
    above = pairs[pairs["position_y"] < pairs["position_x"]]
    return above.rename(columns={"item_id_x": "preferred_item_id", "item_id_y": "other_item_id"})


@pytest.mark.parametrize(
    ("scores", "pairs"), [(SHOWN, PAIRS), (SHOWN.assign(half=1)[4:], PAIRS), (SHOWN.assign(half=1), PAIRS[3:])]
)
def test_without_rows_lists_or_pairs_there_is_nothing_to_hold(scores: pd.DataFrame, pairs: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="nothing to hold against the truth"):
        held(scores, TRUTH, pairs, seed=1)
