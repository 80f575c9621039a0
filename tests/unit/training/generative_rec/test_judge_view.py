"""Which judge a stage may ask, what it is shown, and what becomes of items that it does not know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.alignment_kit import ITEMS, write_samples, write_start
from tests.unit.training.judge_kit import packaged_judge
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, TableRef
from training.generative_rec import judge_view
from training.generative_rec.judge_view import JudgeView, newest_judge
from training.generative_rec.validation import Example
from training.semantic_judge.aspects import Aspect, aspects
from training.semantic_judge.examples import Cases, Catalogue, Floats, Item
from training.semantic_judge.judge import Uniform
from training.semantic_judge.serve import Judge, Learnt

PROFILE = "user_profile__profile_text"
KNOWN = ITEMS[:10]


class Recorder:
    """Part A that keeps what it was shown; it is the surer of the highest level the larger the item's number."""

    aspects: Sequence[Aspect] = aspects(False)

    def __init__(self) -> None:
        self.seen: list[Cases] = []

    def chances(self, cases: Cases) -> list[Floats]:
        self.seen.append(cases)
        sure = (cases.item / 10.0).astype(np.float32)
        found = [np.zeros((len(cases), len(one.values)), dtype=np.float32) for one in self.aspects]
        for one in found:
            one[:, -1], one[:, 0] = sure, 1.0 - sure
        return found


def judge(recorder: Recorder, learnt: Learnt | None = None) -> Judge:
    evidence: Any = type("Known", (), {"catalogue": Catalogue([Item(item, item, None, None, None) for item in KNOWN])})
    return Judge(evidence, recorder, Uniform(recorder.aspects), learnt or Learnt("2024-01-03", 20))


def statistics(path: Path, rows: Sequence[tuple[str, int, float, int]]) -> Path:
    """`item_stats`: item, day of January 2024 from which the row may be used, mean rating, events."""
    columns: dict[str, Any] = dict(
        zip(("item_id", "day", "mean_rating_365d", "events_365d"), zip(*rows, strict=True), strict=True)
    )
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day - 1) for day in columns.pop("day")]
    table = pa.table({name: list(values) for name, values in columns.items()})
    pq.write_table(table.append_column("available_at", pa.array(days, pa.timestamp("us", "UTC"))), path)
    return path


def with_statistics(spec: StageSpec, folder: Path, rows: Sequence[tuple[str, int, float, int]]) -> StageSpec:
    table = TableRef((str(statistics(folder / "item_stats.parquet", rows)),))
    return replace(spec, tables={**spec.tables, "item_stats": table})


ROWS = [("i0", 2, 3.0, 7), ("i0", 3, 5.0, 8), ("i0", 4, 1.0, 99), ("i5", 4, 2.0, 1)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StageSpec:
    folder = tmp_path_factory.mktemp("shop")
    spec = with_statistics(write_start(folder), folder, ROWS)
    return replace(spec, models={"semantic_judge": (packaged_judge(folder / "judge", ITEMS),)})


def example(user: str, day: int) -> Example:
    return Example(user, (1,), 0, as_of=date(2024, 1, day))


def test_a_shop_without_a_judge_is_told_so(spec: StageSpec) -> None:
    for models in ({}, {"semantic_judge": ()}):
        with pytest.raises(LeftOut, match="no semantic judge has been trained yet"):
            newest_judge(replace(spec, models=models), "time")


@pytest.mark.parametrize(("until", "refused"), [("2024-01-03", False), ("2024-01-04", True), ("2026-01-01", True)])
def test_a_judge_that_has_learnt_of_a_day_that_is_held_out_is_not_asked(
    spec: StageSpec, tmp_path: Path, until: str, refused: bool
) -> None:
    """The fourth day is of validation. One whose users were parted has learnt up to the last day of its data."""
    asked = replace(spec, models={"semantic_judge": (packaged_judge(tmp_path / "judge", ITEMS, until),)})
    if refused:
        with pytest.raises(LeftOut, match=f"has learnt of days up to {until}"):
            newest_judge(asked, "time")
    else:
        assert newest_judge(asked, "time").learnt == Learnt(until, 20)


def test_nor_one_that_does_not_say_or_where_no_day_tells(spec: StageSpec, tmp_path: Path) -> None:
    with pytest.raises(LeftOut, match="under leave_one_out other users' tests are in them"):
        newest_judge(spec, "leave_one_out")
    version = packaged_judge(tmp_path / "judge", ITEMS)
    (tmp_path / "judge" / "learnt.json").unlink()
    with pytest.raises(LeftOut, match="does not say of which days it has learnt"):
        newest_judge(replace(spec, models={"semantic_judge": (version,)}), "time")


def test_it_sees_the_days_before_the_sample_with_the_stars_and_what_others_had_made_of_the_item(
    spec: StageSpec, tmp_path: Path
) -> None:
    rated = [[float(place) for place in range(step)] for _ in range(30) for step in range(5)]
    told = [f"day {step}" for _ in range(30) for step in range(5)]
    samples = write_samples(tmp_path / "samples.parquet", history_ratings=rated, **{PROFILE: told})
    spec = replace(spec, tables={**spec.tables, "next_item_training_set": TableRef((str(samples),))})
    recorder = Recorder()
    view = JudgeView.of(judge(recorder), spec, [example("u01", 1), example("u00", 3)])
    view.scores([1, 0], [["i0", "i5"], ["i0", "i1"]])
    (cases,) = recorder.seen
    third, first = cases.user(0), cases.user(2)
    assert (third.user_id, third.as_of, third.profile) == ("u00", date(2024, 1, 3), "day 2")
    assert (third.history, third.ratings) == (("i0", "i5"), (0.0, 1.0))  # i10, of the day itself, is not in it
    assert (first.as_of, first.history, first.profile) == (date(2024, 1, 1), (), "day 0")
    assert [cases.judged(row).item_id for row in range(4)] == ["i0", "i5", "i0", "i1"]
    assert cases.mean_rating.tolist() == pytest.approx([5.0, np.nan, np.nan, np.nan], nan_ok=True)
    assert cases.events.tolist() == pytest.approx([8.0, np.nan, np.nan, np.nan], nan_ok=True)


def test_nothing_of_the_day_or_later_reaches_the_judge(spec: StageSpec, tmp_path: Path) -> None:
    """Whatever is taken, said or counted from the day on, the judge is shown the same."""
    shown = []
    for later in (False, True):
        folder = tmp_path / str(later)
        folder.mkdir()
        taken = [ITEMS[(user + 5 * step) % 12] for user in range(30) for step in range(5)]
        changed = [ITEMS[7] if later and n % 5 >= 2 else item for n, item in enumerate(taken)]
        history = [changed[user * 5 : user * 5 + step] for user in range(30) for step in range(5)]
        words = [f"planted {later}" if n % 5 > 2 else "before" for n in range(150)]
        changes = {"item_id": changed, "history_item_ids": history, PROFILE: words}
        samples = write_samples(folder / "samples.parquet", **changes)
        counted = [*ROWS, *((item, day, 1.0, 1000) for item in ITEMS for day in (5, 6) if later)]
        own = with_statistics(spec, folder, counted)
        own = replace(own, tables={**own.tables, "next_item_training_set": TableRef((str(samples),))})
        recorder = Recorder()
        view = JudgeView.of(judge(recorder), own, [example(f"u{user:02d}", 3) for user in range(30)])
        view.scores(range(30), [KNOWN] * 30)
        (cases,) = recorder.seen
        shown.append([cases.user(row) for row in range(0, len(cases), len(KNOWN))])
        shown.append(list(zip(cases.item.tolist(), cases.mean_rating.tolist(), cases.events.tolist(), strict=True)))
    assert shown[0] == shown[2] and {user.profile for user in shown[0]} == {"before"}
    assert repr(shown[1]) == repr(shown[3])
    assert any(len(user.history) == 2 for user in shown[0])


def test_a_history_is_cut_to_what_the_judge_has_learnt_of(spec: StageSpec) -> None:
    for most, left in ((0, ()), (1, ("i5",)), (20, ("i0", "i5"))):
        view = JudgeView.of(judge(Recorder(), Learnt("2024-01-03", most)), spec, [example("u00", 3)])
        assert view.states.state(0, view.judge.evidence.catalogue).history == left


def test_an_item_that_the_judge_does_not_know_is_as_good_as_the_others_of_its_group(spec: StageSpec) -> None:
    view = JudgeView.of(judge(Recorder()), spec, [example("u00", 3), example("u01", 3)])
    scores, nobody, one = view.scores([0, 1, 0], [["i2", "i11", "i6"], ["i11", "i10"], ["i3", "i10"]])
    assert scores is not None and nobody is None and one is None
    assert scores[1] == pytest.approx((scores[0] + scores[2]) / 2) and scores[0] < scores[2]
    assert view.scores([], []) == []


def test_many_are_judged_some_at_a_time(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    view = JudgeView.of(judge(recorder), spec, [example(f"u{user:02d}", 3) for user in range(5)])
    groups = [["i0", "i11", "i5"], ["i1", "i2"], ["i3", "i4", "i9"], ["i8", "i6"], ["i10", "i7", "i2"]]
    whole = view.scores(range(5), groups)
    monkeypatch.setattr(judge_view, "_AT_ONCE", 3)
    parts = view.scores(range(5), groups)
    assert len(recorder.seen) == 1 + 4 and max(map(len, recorder.seen[1:])) == 3
    assert all(len(cases.states) <= 2 for cases in recorder.seen[1:])  # only the users who are asked about
    assert [own.tolist() for own in whole if own is not None] == [own.tolist() for own in parts if own is not None]


def test_an_example_that_is_no_sample_is_named(spec: StageSpec) -> None:
    with pytest.raises(DataError, match=r"(?s)no samples of the training set.*u00 on 2024-02-01"):
        JudgeView.of(judge(Recorder()), spec, [Example("u00", (1,), 0, as_of=date(2024, 2, 1))])


def test_a_package_says_what_the_judge_has_learnt_of(spec: StageSpec) -> None:
    noted = Path(spec.models["semantic_judge"][0].folder) / "learnt.json"
    assert json.loads(noted.read_text()) == {"until": "2024-01-03", "history": 20}
