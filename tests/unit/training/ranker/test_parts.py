"""Who learns from what: no signal has seen what it is a feature for, and nobody the test part."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core.errors import LeftOut
from training.next_item.sample_columns import NextItem, Samples
from training.next_item.samples import Split, leave_one_out, of_subset
from training.ranker.parts import LearnFrom, Rows, parted

FIRST = date(2024, 1, 1)


def samples(*users: list[int], cuts: tuple[int, int] = (6, 8)) -> Samples:
    """Of users who take the item i<day> on each of these days; split by time at the two days."""
    found = []
    for user, days in enumerate(users):
        for day in days:
            subset = "train" if day < cuts[0] else "valid" if day < cuts[1] else "test"
            past = tuple(f"i{earlier}" for earlier in days if earlier < day)
            found.append(NextItem(f"u{user}", FIRST + timedelta(days=day), f"i{day}", past, subset))
    return Samples.of(found)


def told(part: Samples) -> set[tuple[str, date, str]]:
    return set(part.told())


_USERS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True).map(sorted), min_size=2, max_size=6)


@settings(max_examples=100, deadline=None)
@given(_USERS, st.sampled_from(["time", "leave_one_out"]), st.sampled_from(["train", "validation"]), st.integers(0, 9))
def test_no_signal_has_seen_the_event_that_it_is_a_feature_for(
    users: list[list[int]], split: Split, learn_from: LearnFrom, seed: int
) -> None:
    every = samples(*users)
    own = leave_one_out(every) if split == "leave_one_out" else every
    try:
        parts = parted(own, split, learn_from, 0.3, seed)
    except LeftOut:
        return
    test, seen = told(of_subset(own, "test")), told(of_subset(parts.early or parts.full, "train"))
    assert not seen & told(parts.learn)
    assert not told(of_subset(parts.full, "train")) & told(parts.stop)
    assert not told(parts.learn) & told(parts.stop)
    assert not test & (seen | told(parts.learn) | told(parts.stop))
    catalogue = sorted(set(every.item_ids))
    learnt = Rows.of(parts.early or parts.full, catalogue).learnt(len(catalogue), 0)
    days = {(int(day), catalogue[item]) for ds, line in zip(learnt.days, learnt.sequences, strict=True)
            for day, item in zip(ds, line, strict=True)}  # fmt: skip
    if split == "time":  # nothing of the days on which the ranker's events are, of any user
        assert not {int(d) for d, _ in days} & {int(d) for d in parts.learn.days[parts.learn.rows]}


def test_under_leave_one_out_the_ranker_learns_each_users_last_training_item() -> None:
    parts = parted(leave_one_out(samples([0, 1, 2, 3], [4, 5, 6])), "leave_one_out", "train", 0.3, 0)
    assert parts.early is not None
    assert {item for _, _, item in parts.learn.told()} == {"i1"}  # the second user has one training item
    assert {item for _, _, item in of_subset(parts.early, "train").told()} == {"i0", "i4"}


def test_in_a_time_split_the_ranker_learns_the_last_days_whole() -> None:
    parts = parted(samples([0, 1, 2, 3, 7], [1, 2, 5], [5, 6]), "time", "train", 0.3, 0)
    assert {day for _, day, _ in parts.learn.told()} == {FIRST + timedelta(days=day) for day in (3, 5)}
    assert len(parts.learn) == 3  # of eight: no day is divided


def test_a_question_has_the_history_and_what_was_known_before() -> None:
    every = samples([0, 1, 2, 7], [3, 6])
    catalogue = sorted(set(every.item_ids))
    rows = Rows.of(every, catalogue)
    asked = of_subset(every, "valid")
    questions = rows.questions(asked)
    assert [[catalogue[item] for item in history] for history in questions.histories] == [["i0", "i1", "i2"], ["i3"]]
    assert [[catalogue[item] for item in past] for past in questions.pasts] == [["i0", "i1", "i2"], ["i3"]]
    assert [catalogue[item] for item in rows.truth(asked)] == ["i7", "i6"]


def test_what_is_learnt_is_the_training_part_with_its_days() -> None:
    learnt = Rows.of(samples([0, 1, 7], [3, 9]), [f"i{n}" for n in range(10)]).learnt(10, 3)
    assert [line.tolist() for line in learnt.sequences] == [[0, 1], [3]]
    first = (FIRST - date(1970, 1, 1)).days
    assert [(days - first).tolist() for days in learnt.days] == [[0, 1], [3]]
    assert learnt.counts.tolist() == np.bincount([0, 1, 3], minlength=10).tolist()


@pytest.mark.parametrize("learn_from", ["train", "validation"])
def test_a_shop_with_too_few_events_has_no_ranker(learn_from: LearnFrom) -> None:
    with pytest.raises(LeftOut, match="too few events"):
        parted(samples([0], [1]), "time", learn_from, 0.3, 0)
