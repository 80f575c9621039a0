"""People search for what they wish in real queries that something answers, and in words of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.market.draws import Draws
from spark_jobs.market.queries import Queries
from spark_jobs.market.shop import Shop
from spark_jobs.market.space import Space
from tests.unit.spark_jobs.market.kit import items, parameters, tables, world

ASKED = ("desk lamp", "pen model3", "pen size1", "lampe de bureau", "stylo", "pen for a qqq of www and zzz")


def queries(asked: tuple[str, ...] = (), frame: pd.DataFrame | None = None) -> tuple[Shop, Queries]:
    market = world(frame, asked=asked)
    return market.shop, market.queries


def test_a_text_answers_what_it_holds_most_of() -> None:
    """Weights of words: pen ln(4/3) + 1 = 1.288, red ln(4/2) + 1 = 1.693, unknown ones ln(4) + 1 = 2.386."""
    space = Space.of(["red pen", "blue pen", "ink"], 8, Draws(1))
    asked, texts = ["red pen", "pen yacht", "yacht"], ["red pen", "blue pen", "ink"]
    assert space.known(asked) == pytest.approx([1.0, 1.2877 / (1.2877 + 2.3863), 0.0], abs=1e-4)

    def pairs(least: float) -> list[tuple[int, int]]:
        return list(zip(*(one.tolist() for one in space.answers(asked, texts, least)), strict=True))

    assert pairs(0.7) == [(0, 0)]
    assert pairs(0.4) == [(0, 0), (0, 1)]  # 1.288 of 2.981
    assert pairs(0.3) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_only_what_something_answers_is_asked() -> None:
    shop, found = queries(ASKED)
    assert found.texts[: found.real] == ["pen model3", "pen size1"]  # no desk is a lamp, and who knows what a stylo is
    assert len(set(found.texts)) == len(found) == len(found.vectors) == len(found.items)
    for number in range(found.real):
        words = set(found.texts[number].split())
        answers = [item for item in range(120) if words <= set(shop.space.words(shop.texts[item]))]
        assert set(found.items[number][: len(answers)]) <= set(answers) and answers


def test_the_order_of_what_was_asked_and_repeats_are_no_matter() -> None:
    one, two = queries(ASKED)[1], queries((*reversed(ASKED), *ASKED))[1]
    assert one.texts == two.texts and np.array_equal(one.near, two.near)


def test_own_wordings_are_words_of_the_thing_in_their_order() -> None:
    shop, found = queries()
    assert found.real == 0
    for item in range(120):
        own = [found.texts[number] for number in found.near[item] if number >= 0]
        words = list(dict.fromkeys(shop.space.words(shop.texts[item])))
        for text in own:
            places = [words.index(word) for word in text.split()]
            assert places == sorted(places) and 2 <= len(places) <= 4
        assert 1 <= len(own) <= 3


def test_things_without_words_are_asked_for_by_their_ids() -> None:
    nothing = dict.fromkeys(["title", "brand", "category"], pd.Series([None] * 120, dtype=object))
    shop, found = queries(ASKED, items(**nothing))
    assert list(found.texts) == list(shop.item_ids) and found.real == 0
    searches = tables(world(items(**nothing)), 60)["searches"]
    assert len(searches) and set(searches["query"]) <= set(range(120))


@given(st.lists(st.text("penik модель-🖊 123", max_size=20), max_size=6))
def test_any_texts_can_be_asked(asked: list[str]) -> None:
    _, found = queries(tuple(asked), items(12))
    assert set(found.texts[: found.real]) <= set(asked) and np.isfinite(found.counted).all()
    assert (found.near[:, 0] >= 0).all()


def test_what_is_typed_is_near_to_the_wish_whoever_else_types() -> None:
    shop, found = queries(ASKED)
    wish, person = np.tile(np.arange(120), 20), np.arange(2_400)
    typed = found.typed(wish, person, 3, Draws(7))
    assert np.array_equal(typed[700:701], found.typed(wish[700:701], person[700:701], 3, Draws(7)))
    near = np.einsum("nd,nd->n", shop.vectors[wish], found.vectors[typed])
    chance = np.einsum("nd,nd->n", shop.vectors[wish], found.vectors[Draws(1).choice(np.ones(len(found)), "x", person)])
    assert near.mean() > chance.mean() + 0.3
    pens = np.isin(wish, found.items[: found.real][:, :3])
    real = typed < found.real
    assert 0.2 < real[pens].mean() < 1.0 and real[~pens].mean() < real[pens].mean()


def test_what_is_asked_more_is_counted_more() -> None:
    shop, found = queries(ASKED)
    wishes = np.exp(parameters().utility.appeal * shop.appeal)
    person = np.arange(60_000)
    typed = found.typed(Draws(3).choice(wishes, "wish", person), person, 0, Draws(7))
    asked = np.bincount(typed, minlength=len(found)) * len(found) / len(person)
    assert np.corrcoef(np.log1p(asked), found.counted)[0, 1] > 0.98
