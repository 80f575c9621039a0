"""What the shop's judge says of generated items, for stages that align the generator with it.

A judge is asked what it was taught to answer: who the user was before the day of the sample (the items and stars of
days before it, the profile as it stood then) and what others had made of an item before that day. Nothing of the sample
itself is in it, neither the answer nor its day. It has learnt from the training part, where its teachers knew what each
user took next, so it may be surer there than of new histories; of days that are held out it has learnt nothing
(`newest_judge` sees to that).

An item that the judge does not know gets the mean of what it says of the others of the group: it is neither better nor
worse, and its semantic advantage is 0. A group of which it knows fewer than two items is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, read_batches
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.validation import Example
from training.next_item.samples import PROFILE, RATINGS, TABLE, Split, of_subset, read_samples
from training.ranker.serve import newest
from training.semantic_judge.examples import Cases, Floats, Ints, States, UserState
from training.semantic_judge.item_statistics import ItemStatistics
from training.semantic_judge.serve import Judge

JUDGE = "semantic_judge"
_AT_ONCE = 1 << 14
_HISTORY = "history_item_ids"
_COLUMNS = {
    "user_id": pa.string(),
    "sample_date": pa.date32(),
    _HISTORY: pa.list_(pa.string()),
    RATINGS: pa.list_(pa.float64()),
    PROFILE: pa.string(),
}
UserDay = tuple[str, date]


def newest_judge(spec: StageSpec, split: Split) -> Judge:
    """The newest judge that the spec names.

    Raises:
        LeftOut: there is none yet; it has learnt of a day that this run holds out, or does not say of which it has; or
            each user's last items are held out, which no day tells.
    """
    folder = newest(spec.models.get(JUDGE, ()))
    if folder is None:
        do = "run the semantic judge's training, and then this one again"
        raise LeftOut("no semantic judge has been trained yet", do=do)
    if split == "leave_one_out":
        raise LeftOut("a judge learns of days, and under leave_one_out other users' tests are in them", do="use `time`")
    judge = Judge.load(folder)
    if judge.learnt is None:
        raise LeftOut("the judge does not say of which days it has learnt", do="run the judge's training again")
    samples = read_samples(spec, split)
    held = [part.days[part.rows] for name in ("valid", "test") if len(part := of_subset(samples, name))]
    first = min((int(days.min()) for days in held), default=None)
    if first is not None and judge.learnt.until_day >= first:
        raise LeftOut(
            f"the judge has learnt of days up to {judge.learnt.until}, and some of them are held out here",
            do="run the judge's training on the same days, parted by time",
        )
    return judge


@dataclass(frozen=True, eq=False)
class JudgeView:
    """The judge before the user states of some examples: `state` [examples] is the place of each in `states`."""

    judge: Judge
    statistics: ItemStatistics
    states: States
    state: Ints

    @classmethod
    def of(cls, judge: Judge, spec: StageSpec, examples: Sequence[Example]) -> Self:
        """Read the states of the examples and the statistics of the items. DataError where an example is no sample."""
        wanted = [(one.user_id, one.as_of) for one in examples]
        told = _told(spec, frozenset(wanted), judge.learnt.history if judge.learnt else None)
        if absent := set(wanted) - told.keys():
            raise DataError(
                f"{len(absent)} examples are no samples of the training set",
                where=TABLE,
                why="such as that of {} on {}".format(*min(absent)),
                do="run all stages on the same snapshots",
            )
        place = {key: number for number, key in enumerate(told)}
        catalogue = judge.evidence.catalogue
        state = np.array([place[key] for key in wanted], dtype=np.int64)
        return cls(judge, ItemStatistics.read(spec, catalogue), States.of(catalogue, list(told.values())), state)

    def unknown(self, items: ItemCodes) -> float:
        """The share of the generator's items that the judge does not know."""
        known = self.judge.evidence.catalogue.numbers
        return float(np.mean([item not in known for item in items.item_ids]))

    def scores(self, places: Sequence[int], items: Sequence[Sequence[str]]) -> list[Floats | None]:
        """What the judge says of the `items` of each group, answered to the example at its place: [items] each, with
        the group's mean for one that it does not know; None for a group of which it knows fewer than two."""
        catalogue = self.judge.evidence.catalogue
        lengths = [len(own) for own in items]
        numbers = np.array([catalogue.numbers.get(item, -1) for own in items for item in own], dtype=np.int64)
        states = np.repeat(self.state[np.array(places, dtype=np.int64)], lengths)
        known, found = np.flatnonzero(numbers >= 0), np.full(len(numbers), np.nan, dtype=np.float32)
        for start in range(0, len(known), _AT_ONCE):
            rows = known[start : start + _AT_ONCE]
            found[rows] = self.judge.scores_of(self._cases(states[rows], numbers[rows])).score
        return [_filled(own) for own in np.split(found, np.cumsum(lengths)[:-1])] if lengths else []

    def _cases(self, states: Ints, items: Ints) -> Cases:
        """Only the states that are asked about are in them: what a judge reads of a user costs a model's pass."""
        asked, state = np.unique(states, return_inverse=True)
        known = self.statistics.of(items, self.states.days[states])
        return Cases(self.judge.evidence.catalogue, self.states.chosen(asked), state.astype(np.int64), items, *known)


def _filled(scores: Floats) -> Floats | None:
    known = ~np.isnan(scores)
    return np.where(known, scores, scores[known].mean()) if known.sum() > 1 else None


def _told(spec: StageSpec, wanted: frozenset[UserDay], history: int | None) -> Mapping[UserDay, UserState]:
    """What the sample table says of each user before each day; of a history the last `history` items.

    All samples of a user and a day have the same past, so one of them tells it.
    """
    users = pa.array(sorted({user for user, _ in wanted}), pa.string())
    found: dict[UserDay, UserState] = {}
    for batch in read_batches(spec, TABLE, _COLUMNS, later=(RATINGS, PROFILE)):
        for row in batch.filter(pc.is_in(batch["user_id"], users)).to_pylist():
            key = row["user_id"], row["sample_date"]
            if key in wanted and key not in found:
                items = row[_HISTORY]
                ratings = row[RATINGS] or [None] * len(items)
                first = 0 if history is None else max(len(items) - history, 0)
                found[key] = UserState(*key, tuple(items[first:]), tuple(ratings[first:]), row[PROFILE])
    return found
