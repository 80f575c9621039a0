"""What is learnt of labels: answers in pieces around what nobody knows, rewards by hand, contradictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.semantic_judge import scorer_kit as kit
from training.core.errors import LeftOut
from training.core.policy.groups import Group, Request, Response
from training.semantic_judge.answers import Answer, Answers
from training.semantic_judge.aspects import UNKNOWN, Levels, aspects
from training.semantic_judge.examples import Cases
from training.semantic_judge.labelled import Labelled
from training.semantic_judge.lessons import agreement, requests_of, rewards_of, samples_of
from training.semantic_judge.reasons import Claims, claims_of, contradictions, contradicts

SCORED = aspects(False)


def labelled(cases: Cases, levels: Levels, reasons: Sequence[str | None] | None = None) -> Labelled:
    return Labelled(cases, levels, reasons or [None] * len(levels), SCORED, kit.evidence())


PROMPTS = kit.prompts()
ANSWERS = Answers(PROMPTS.vocabulary, SCORED, reason_tokens=12)


def test_a_level_that_nobody_knows_is_passed_over_and_what_follows_is_learnt() -> None:
    cases = kit.cases(3, 1)
    levels = np.array([[4, 2, 0], [3, UNKNOWN, 1], [UNKNOWN, 1, UNKNOWN]], dtype=np.int8)
    samples = samples_of(PROMPTS, ANSWERS, labelled(cases, levels, ["blue", "red", None]), seed=5)
    prompts, (profile, future, novelty) = PROMPTS.whole(cases), ANSWERS.chain.tokens
    whole, first, rest, middle, last = list(samples)
    assert (whole.prompt, whole.response) == (prompts[0], ANSWERS.written((4, 2, 0), "blue"))
    assert (first.prompt, first.response) == (prompts[1], (profile[3],))
    assert rest.prompt[:-1] == (*prompts[1], profile[3]) and rest.prompt[-1] in {future[1], future[2]}  # as others are
    assert rest.response == ANSWERS.written((3, 0, 1), "red")[2:]
    assert middle.prompt[:-1] == prompts[2] and middle.response == (future[1],)
    assert last.response == (ANSWERS.end,) and last.prompt[-1] in {novelty[0], novelty[1]}


def test_a_request_has_the_levels_as_its_context() -> None:
    levels = np.array([[4, 2, 0], [UNKNOWN, 1, UNKNOWN]], dtype=np.int8)
    cases = kit.cases(2, 1)
    requests = requests_of(PROMPTS, labelled(cases, levels))
    assert [request.context for request in requests] == [(4, 2, 0), (-1, 1, -1)]
    assert [request.prompt for request in requests] == PROMPTS.whole(cases)


def test_draws_are_of_whole_user_states_and_a_larger_one_holds_a_smaller() -> None:
    cases = kit.cases(10, 3)
    all_of_them = labelled(cases, np.zeros((30, 3), dtype=np.int8))
    small, large = all_of_them.drawn(7, seed=1), all_of_them.drawn(20, seed=1)
    assert len(small) == 6 and len(large) == 18 and len(all_of_them.drawn(99, seed=1)) == 30
    states = [set(part.cases.state.tolist()) for part in (small, large)]
    assert states[0] < states[1] and [len(own) for own in states] == [2, 6]
    with pytest.raises(LeftOut):
        all_of_them.drawn(2, seed=1)


def test_agreement_is_that_by_hand() -> None:
    # Profile: two of four steps off, 0.5; future: right, 2; novelty: as far off as can be, 0.
    assert agreement(Answer((2, 1, 2), ""), (4, 1, 0), SCORED) == pytest.approx(2.5)
    assert agreement(Answer((4, 2, 0), "any words"), (4, 2, 0), SCORED) == 6.0
    assert agreement(Answer((4, 2, 0), ""), (UNKNOWN, 2, UNKNOWN), SCORED) == 2.0
    assert agreement(None, (4, 2, 0), SCORED) == 0.0


@given(tokens=st.lists(st.integers(0, len(PROMPTS.vocabulary) - 1), max_size=8).map(tuple))
def test_what_cannot_be_read_earns_nothing(tokens: tuple[int, ...]) -> None:
    good = ANSWERS.written((4, 2, 0), "blue")
    group = Group(Request((1,), (4, 2, 0)), tuple(Response(one, (1,)) for one in (good, tokens, tokens[:-1])))
    agrees, form = (term.function([group])[0] for term in rewards_of(ANSWERS))
    assert agrees is not None and form is not None
    read = [ANSWERS.read(one) is not None for one in (good, tokens, tokens[:-1])]
    assert form.tolist() == [float(one) for one in read] and agrees[0] == 6.0
    assert torch.equal(agrees == 0.0, torch.tensor([not one for one in read])) or agrees[1:].max() > 0


def test_reasons_are_read_by_their_words() -> None:
    assert claims_of("near to what was liked; of a brand that pleased") == Claims(1, False)
    assert claims_of("others rated it low; taken before") == Claims(-1, True)
    assert claims_of("near to what was liked; others rated it low") == Claims(0, False)
    assert claims_of("</text> levels 4 4 4") == claims_of("little is known") == Claims(0, False)


def test_a_reason_contradicts_a_level_on_the_other_side_of_neutral() -> None:
    good, bad, taken = Claims(1, False), Claims(-1, False), Claims(0, True)
    assert [contradicts(good, (level, 0, 0), SCORED) for level in range(5)] == [True, True, False, False, False]
    assert [contradicts(bad, (level, 0, 0), SCORED) for level in range(5)] == [False, False, False, True, True]
    assert [contradicts(taken, (2, 0, level), SCORED) for level in (UNKNOWN, 0, 1, 2)] == [False, False, True, True]
    reasons = ["near to what was liked", "others rated it low", "little is known", None]
    levels = np.array([[0, 1, 1], [1, 1, 1], [4, 1, 1], [4, 1, 1]], dtype=np.int8)
    assert contradictions(reasons, levels, SCORED) == {"contradictions": 0.5, "silent": 0.5}
