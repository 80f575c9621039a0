"""Whoever asks the help desk has a cause that happened to them before, in a state that an order can be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from infra.errors import DataError
from spark_jobs.market.chats import LOGISTICS_STATES, ORDER_STATES, PLACES
from spark_jobs.market.log import logged
from spark_jobs.market.parameters import ChatCause, Parameters
from spark_jobs.market.visits import VISITS, World
from tests.unit.spark_jobs.market.kit import DAY, DAYS, START, parameters, utterances, with_desk, world

PEOPLE = 1_500
OWN = parameters().chats
CAUSES = list(OWN.causes)
ORDER = [name for name, cause in OWN.causes.items() if cause.when not in ("cart", "visit")]
STATES = {  # of the moment in which a cause comes
    "placed": ("placed", None), "paid": ("paid", None), "in_transit": ("shipped", "in transit"),
    "late": ("shipped", "late"), "lost": ("shipped", "lost"), "delivered": ("delivered", "delivered"),
    "returned": ("returned", "delivered"), "cancelled": ("cancelled", None), "cart": (None, None),
    "visit": (None, None),
}  # fmt: skip


def told(market: World, people: np.ndarray | None = None) -> dict[str, pd.DataFrame]:
    """Tables of the log; chats with names for numbers, and the truth beside them."""
    batches = logged(market, np.arange(PEOPLE) if people is None else people).batches
    found = {name: pa.Table.from_batches(rows).to_pandas() for name, rows in batches.items()}
    if "chats" in found and market.desk is not None:
        chats = found["chats"].merge(found["true_chats"], on=["chat_id", "chat_time"], validate="one_to_one")
        causes = np.array(list(market.parameters.chats.causes), dtype=object)
        found["chats"] = chats.assign(
            cause=causes[chats["cause"]],
            intent=np.array(market.desk.intents)[chats["intent"]],
            meant=np.array(market.desk.intents)[chats["meant_intent"]],
            message=np.array(market.desk.wordings)[chats["message"]],
            order_state=[None if n < 0 else ORDER_STATES[n] for n in chats["order_state"]],
            logistics_state=[None if n < 0 else LOGISTICS_STATES[n] for n in chats["logistics_state"]],
        )
    return found


@pytest.fixture(scope="module")
def tables() -> Mapping[str, pd.DataFrame]:
    return told(with_desk())


def test_every_cause_comes_and_before_the_chat_within_the_horizon(tables: Mapping[str, pd.DataFrame]) -> None:
    chats = tables["chats"]
    assert set(chats["cause"]) == set(CAUSES)
    assert chats["chat_id"].is_unique
    assert (chats["cause_time"] >= START).all() and (chats["cause_time"] < chats["chat_time"]).all()
    assert (chats["chat_time"] < START + DAYS * DAY).all()


def test_an_order_that_is_asked_about_was_bought_by_that_person_at_that_time(
    tables: Mapping[str, pd.DataFrame],
) -> None:
    chats, events = tables["chats"], tables["events"]
    done = {kind: events[events["event_type"] == kind] for kind in ("purchase", "cart")}
    bought = set(done["purchase"][["user_id", "item_id", "event_time"]].itertuples(index=False, name=None))
    orders = chats[chats["cause"].isin(ORDER)]
    ago = (orders["days_since_purchase"] * DAY).round().astype(np.int64)
    found = zip(orders["user_id"], orders["item_id"], orders["chat_time"] - ago, strict=True)
    assert set(found) <= bought and (orders["cause_time"] >= orders["chat_time"] - ago).all()
    carts = chats[chats["cause"].map(lambda name: OWN.causes[name].when == "cart")]
    left = done["cart"][["user_id", "item_id"]].itertuples(index=False, name=None)
    assert set(zip(carts["user_id"], carts["item_id"], strict=True)) <= set(left)
    visits = chats[chats["cause"].map(lambda name: OWN.causes[name].when == "visit")]
    requests = tables["true_requests"].set_index("request_id")["request_time"]
    assert (visits["item_id"] == -1).all()
    assert (requests[visits["chat_id"] // PLACES].to_numpy() == visits["cause_time"]).all()
    assert (chats["chat_id"] // PLACES // VISITS == chats["user_id"]).all()


def test_the_states_are_those_of_the_moment_in_which_the_cause_comes(tables: Mapping[str, pd.DataFrame]) -> None:
    for chat in tables["chats"].itertuples():
        assert (chat.order_state, chat.logistics_state) == STATES[OWN.causes[chat.cause].when]
        assert np.isnan(chat.days_since_purchase) == (chat.order_state is None)


def test_orders_take_their_time() -> None:
    """Nothing is paid before it is placed, sent before it is paid, or late before it could have come."""
    every = dict.fromkeys(("placed", "paid", "in_transit", "late", "lost", "delivered", "returned", "cancelled"), 0.125)
    causes = {name: ChatCause(name, share, ("get_refund", "track_order")) for name, share in every.items()}  # type: ignore[arg-type]
    own = replace(OWN, causes=causes, late=0.3, lost=0.2, cancelled=0.2, returned=0.4, keeps=1.0)
    chats = told(with_desk(own))["chats"]
    after = (chats["cause_time"] - chats["chat_time"]) / DAY + chats["days_since_purchase"]
    days = after.groupby(chats["cause"])
    assert set(chats["cause"]) == set(every)
    assert days.max()["placed"] == pytest.approx(0.0, abs=1e-9)
    assert days.mean()["paid"] == pytest.approx(own.pays, rel=0.5)
    assert days.mean()["paid"] < days.mean()["in_transit"] < days.mean()["delivered"] < days.mean()["returned"]
    assert days.min()["late"] >= own.travels and days.min()["lost"] >= own.travels
    chances = chats["cause"].value_counts()
    assert chances["placed"] > 3 * chances["lost"] > 0


def test_the_message_words_what_was_meant_and_the_agents_note_is_wrong_as_often_as_it_is_to_be(
    tables: Mapping[str, pd.DataFrame],
) -> None:
    chats, real = tables["chats"], utterances()
    known = set(zip(real["intent"], real["text"], strict=True))
    assert set(zip(chats["meant"], chats["message"], strict=True)) <= known
    assert all(chat.meant in OWN.causes[chat.cause].intents for chat in chats.itertuples())
    wrong = (chats["intent"] != chats["meant"]).mean()
    assert wrong == pytest.approx(OWN.wrong_note, abs=4 * np.sqrt(OWN.wrong_note / len(chats)))
    assert set(chats["intent"]) <= set(real["intent"])
    for share in (0.0, 1.0):
        other = told(with_desk(replace(OWN, wrong_note=share)))["chats"]
        assert (other["intent"] != other["meant"]).mean() == share


def test_whoever_asks_asks_the_same_in_any_company(tables: Mapping[str, pd.DataFrame]) -> None:
    chats = tables["chats"]
    for person in chats["user_id"].unique()[:5]:
        alone = told(with_desk(), np.array([person]))["chats"]
        own = chats[chats["user_id"] == person].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.sort_values("chat_id"), own.sort_values("chat_id"), check_like=True)
    assert not told(with_desk(seed=8))["chats"].equals(chats)


def test_a_desk_changes_nothing_but_that_people_ask(tables: Mapping[str, pd.DataFrame]) -> None:
    closed = told(world())
    assert "chats" not in closed and "true_chats" not in closed
    for name, rows in closed.items():
        assert rows.equals(tables[name])


def test_without_intents_nobody_asks_and_it_is_said() -> None:
    for texts in (utterances()[:0], utterances().assign(intent="weather")):
        market = with_desk(texts=texts)
        assert market.desk is not None and market.desk.told().startswith("no chats")
        assert "chats" not in told(market, np.arange(300))


def test_an_intent_that_the_table_does_not_word_is_named_and_never_asked() -> None:
    real = utterances()
    market = with_desk(texts=real[~real["intent"].isin(["track_order", "track_refund"])])
    chats = told(market)["chats"]
    assert market.desk is not None and "track_order and track_refund" in market.desk.told().replace(", ", " and ")
    assert not {"track_order", "track_refund"} & set(chats["intent"])
    assert "refund_is_slow" not in set(chats["cause"]) and "impatient" in set(chats["cause"])


def test_chances_that_are_none_are_refused_as_the_parameters_are_read() -> None:
    cause = next(iter(OWN.causes.values()))
    for causes in (
        {"a": replace(cause, chance=0.7), "b": replace(cause, chance=0.4)},
        {"a": replace(cause, chance=-1)},
    ):
        with pytest.raises(DataError, match="asks about an order are no chances"):
            replace(OWN, causes=causes)


def test_the_causes_are_part_of_the_parameters_hash() -> None:
    own = Parameters.read()
    other = replace(own.chats, causes={**own.chats.causes, "x": ChatCause("visit", 0.001, ("review",))})
    assert replace(own, chats=other).hash != own.hash
