"""Every edge of IL-GRPO on lists: what a rollout lacks teaches nothing, and never drops its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.unit.training.query_rec.test_interest_lists import LISTS as PLANNED
from tests.unit.training.query_rec.test_interest_lists import MADE
from training.core.policy.groups import Group, Request, Response, Round
from training.core.policy.rewards import rewarded
from training.core.policy.rollouts import Sampling
from training.core.policy.variant import Variant
from training.query_rec.examples import ListConfig
from training.query_rec.hint_model import AnswerConfig, HintModel
from training.query_rec.interest_lists import Interest, Interests
from training.query_rec.labels import LabelConfig
from training.query_rec.policy import Level, hint_variant
from training.query_rec.rewards import References, RewardConfig, RewardShape, query_terms

LISTS = ListConfig(6, LabelConfig(most=3, interests=2, queries=2))


def chances(places: Sequence[int], queries: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
    return [np.array([0.2 + 0.1 * len(query.split()) for query in own], dtype=np.float32) for own in queries]


def model(form: str) -> HintModel:
    """Without weights: nobody asks it to write."""
    return HintModel(None, MADE, AnswerConfig(form, query_tokens=8, reason_tokens=10), LISTS)  # type: ignore[arg-type]


def variant(form: str, level: Level = "query") -> Variant:
    own = model(form)
    terms = query_terms(
        own.answers, chances, RewardConfig(), RewardShape(1.0, 2, 20), lambda _: True, lambda _: 0.1, "v"
    )
    return hint_variant(own, Sampling(4, 40, own.answers.end), terms, level, list_weight=0.5)


def advantages(group: Group, own: Variant) -> torch.Tensor:
    """Of a group that the filter keeps."""
    (found,) = rewarded([group], own.rewards, 0.0)
    assert own.keep(found, Round())
    (values,) = own.advantage([found], Round())
    return values


def group(answers: Sequence[tuple[int, ...]], references: References) -> Group:
    return Group(Request((1,), references), tuple(Response(answer, (1,)) for answer in answers))


FLAT = model("direct").flat
BROKEN = (*MADE.encode_text("pen"), FLAT.next, FLAT.end)
DIRECT = group(
    [
        FLAT.written(["red pen", "lamp"]),
        FLAT.written(["desk"]),
        BROKEN,
        FLAT.written(["red pen", "blue desk", "red lamp"]),
    ],
    References({0: "red pen"}),
)


def test_an_unparsable_rollout_learns_by_all_its_tokens_and_leaves_the_others_their_group() -> None:
    found = advantages(DIRECT, variant("direct"))
    broken = found[2, : len(BROKEN)]
    assert (broken < 0).all() and len(set(broken.tolist())) == 1


def test_of_a_slot_that_one_rollout_alone_has_only_the_list_is_learnt() -> None:
    found, third = advantages(DIRECT, variant("direct")), FLAT.slots(DIRECT.responses[3]).index(2)
    end = len(DIRECT.responses[3].tokens) - 1  # the end token is of no slot
    assert found[3, third] == pytest.approx(float(found[3, end]))


def test_a_query_beyond_the_references_earns_its_click_and_no_overlap() -> None:
    (found,) = rewarded([DIRECT], variant("direct").rewards, 0.0)
    assert found.rewards["rouge"].value[0].tolist()[1] == 0.0 and found.rewards["ctr@v"].value[0, 1] > 0
    # The second queries, both without a reference, differ by click and length alone, and are compared.
    values, slots = advantages(DIRECT, variant("direct")), [FLAT.slots(one) for one in DIRECT.responses]
    assert values[0, slots[0].index(1)] != values[3, slots[3].index(1)]


def test_a_separator_is_of_the_query_that_it_ends() -> None:
    found = advantages(DIRECT, variant("direct"))
    place = DIRECT.responses[0].tokens.index(FLAT.next)
    assert found[0, place] == found[0, place - 1] != found[0, place + 1]


def test_a_group_goes_only_where_nobody_wrote_a_list() -> None:
    own = variant("direct")
    (lost,) = rewarded([group([BROKEN] * 4, References({0: "red pen"}))], own.rewards, 0.0)
    assert not own.keep(lost, Round())
    (one,) = rewarded([group([BROKEN, BROKEN, BROKEN, FLAT.written(["desk"])], References({}))], own.rewards, 0.0)
    assert own.keep(one, Round())


def test_too_easy_and_too_hard_is_left_out() -> None:
    best = FLAT.written(["one two three four five six seven eight"])  # the click's chance is at its cap
    hard = RewardConfig(ctr=0.0, rouge=1.0, length=0.0)
    own = model("direct")
    terms = query_terms(own.answers, chances, hard, RewardShape(1.0, 2, 20), lambda _: True, lambda _: 0.1, "v")
    strict = hint_variant(own, Sampling(2, 40, FLAT.end), terms, "query", list_weight=0.5)
    cut = FLAT.read(best)
    assert cut is not None
    for references, kept in ((References({0: cut[0]}), False), (References({0: "desk"}), False)):
        (found,) = rewarded([group([best, best], references)], strict.rewards, 0.0)
        assert strict.keep(found, Round()) == kept


@pytest.mark.parametrize("form", ["direct", "think"])
def test_by_the_list_all_tokens_of_a_rollout_have_one_advantage(form: str) -> None:
    own = DIRECT if form == "direct" else THINK
    found = advantages(own, variant(form, "list"))
    for row, response in zip(found, own.responses, strict=True):
        assert len(set(row[: len(response.tokens)].tolist())) == 1
    assert found[2, 0] < found[0, 0]


def plan(*found: tuple[tuple[int, ...], tuple[str, ...]]) -> tuple[int, ...]:
    return PLANNED.written(Interests("why", tuple(Interest(*one) for one in found)))


THINK = group(
    [
        plan(((1, 2), ("red pen", "lamp")), ((3,), ("desk",))),
        plan(((1,), ("red pen",))),
        BROKEN,
        plan(((1, 2), ("desk", "pen")), ((4,), ("lamp",))),
    ],
    References({0: "red pen", 2: "desk"}, [(1, 2), (3,)]),
)


def test_triggers_learn_by_their_own_reward_alone_and_reasons_by_that_of_the_list() -> None:
    """The same triggers at the same place have the same advantage, whatever their queries are worth."""
    found = advantages(THINK, variant("think"))
    first = THINK.responses[0].tokens.index(MADE.token("<n_1>"))
    assert found[0, first] == found[3, first] != found[1, first]
    assert found[0, 0] == found[0, len(THINK.responses[0].tokens) - 1]  # a reason, and the end
    slots = [PLANNED.query_slots(one) for one in THINK.responses]
    # Slots are (interest, place): the second interest's first query is compared with that of the other plan.
    assert found[0, slots[0].index(2)] > found[3, slots[3].index(2)]
