"""Hints that were shown, as the hint ranker learns of them: rows of `hint_training_set` with what the person did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, read_table
from training.core.tables import EmptyTable, refuse_nulls
from training.query_rec.hashed_text import Ints, Texts
from training.query_rec.hint_questions import KINDS, OF_QUERY, OF_USER, Floats, Questions, age_of, done
from training.query_rec.item_phrases import item_phrase
from training.query_rec.people import Person, read_met

TABLE = "hint_training_set"
PARTS = ("train", "valid", "test")
_WORDS = ("user_id", "request_id", "query", "split_time")
_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(_WORDS, pa.string()),
    "sample_date": pa.date32(),
    "place": pa.int64(),
    "clicked": pa.int64(),
}
_FLAG = "user_recency__is_cold"
_FLOATS = ("user_daily__mean_rating_365d", "user_recency__days_since_last_event")


@dataclass(frozen=True, eq=False)
class Examples:
    """n hints: `questions`, whether each was `clicked` [n], its `users`, `requests` and `days` (since 1970) [n]."""

    questions: Questions
    clicked: NDArray[np.bool_]
    users: NDArray[np.object_]
    requests: NDArray[np.object_]
    days: Ints

    def __len__(self) -> int:
        """n."""
        return len(self.clicked)

    def chosen(self, rows: Ints) -> Examples:
        """Those, in this order."""
        return Examples(
            self.questions.chosen(rows), self.clicked[rows], self.users[rows], self.requests[rows], self.days[rows]
        )

    def by_request(self) -> list[Ints]:
        """The rows of each request; those of one stand together."""
        return (
            np.split(np.arange(len(self)), np.flatnonzero(self.requests[1:] != self.requests[:-1]) + 1)
            if len(self)
            else []
        )


@dataclass(frozen=True, eq=False)
class Hints:
    """The parts of the split, the `phrases` of the catalogue's items, and the `share` of training hints clicked."""

    parts: Mapping[str, Examples]
    phrases: Mapping[str, str]
    share: float


def read_hints(spec: StageSpec, length: int, buckets: int, requests: int | None) -> Hints:
    """All hints, of the training part those of the last so many `requests`.

    Raises:
        LeftOut: no hint was shown, a part has none, or none of the training part was clicked.
        DataError: a hint is of no request of `query_samples`, or a row breaks the table's contract.
    """
    rows = _rows(spec, requests)
    people = {met.request_id: met.person for met in read_met(spec, ("direct",), PARTS)}
    phrases = read_phrases(spec)
    train = np.asarray(rows["split_time"]) == "train"
    clicked = rows["clicked"].to_numpy() > 0
    share = float(clicked[train].mean()) if train.any() else 0.0
    if not 0.0 < share < 1.0:
        raise LeftOut("of the training hints none was clicked, or all", where=TABLE, do="wait for more hints")
    whole = _examples(rows, people, phrases, length, buckets, share)
    split = np.asarray(rows["split_time"])
    parts = {part: whole.chosen(np.flatnonzero(split == part)) for part in PARTS}
    for part, own in parts.items():
        if not len(own):
            raise LeftOut(f"no hint is in the part {part}", where=TABLE, do="check the cut dates of the split")
    return Hints(parts, phrases, share)


def read_phrases(spec: StageSpec) -> dict[str, str]:
    """The phrase of each item of the table `items` with a title."""
    rows = read_table(spec, "items", dict.fromkeys(("item_id", "title", "brand"), pa.string())).to_pylist()
    return {row["item_id"]: item_phrase(row["title"], row["brand"]) for row in rows if row["title"]}


def read_known(spec: StageSpec, until: date) -> dict[str, Floats]:
    """The newest statistics [OF_QUERY] of each query that `query_stats` has up to the end of this day."""
    names = [name.removeprefix("query_daily__") for name in OF_QUERY]
    types = {"query": pa.string(), "stat_date": pa.date32(), **dict.fromkeys(names, pa.int64())}
    try:
        rows = read_table(spec, "query_stats", types)
    except EmptyTable:
        return {}
    rows = rows.filter(pc.less_equal(rows["stat_date"], pa.scalar(until))).sort_by("stat_date")
    numbers = np.stack([rows[name].to_numpy().astype(np.float32) for name in names], axis=1)
    return dict(zip(rows["query"].to_pylist(), numbers, strict=True))


def _rows(spec: StageSpec, requests: int | None) -> pa.Table:
    integers = dict.fromkeys((*OF_USER, *OF_QUERY), pa.int64())
    types = {**_TYPES, **integers, **dict.fromkeys(_FLOATS, pa.float64()), _FLAG: pa.bool_()}
    try:
        rows = read_table(spec, TABLE, types)
    except EmptyTable as error:
        raise LeftOut(
            "the shop has shown no hints", where=TABLE, do="nothing: it is asked again in the next run"
        ) from error
    refuse_nulls(TABLE, rows, (*_TYPES, _FLAG))
    rows = rows.sort_by([("sample_date", "ascending"), ("request_id", "ascending"), ("place", "ascending")])
    if requests is None:
        return rows
    train = rows.filter(pc.equal(rows["split_time"], "train"))
    kept = set(list(dict.fromkeys(train["request_id"].to_pylist()))[-requests:])
    among = [
        part != "train" or request in kept
        for part, request in zip(rows["split_time"].to_pylist(), rows["request_id"].to_pylist(), strict=True)
    ]
    return rows.filter(pa.array(among))


def _examples(
    rows: pa.Table, people: Mapping[str, Person], phrases: Mapping[str, str], length: int, buckets: int, share: float
) -> Examples:
    requests = rows["request_id"].to_pylist()
    asked = list(dict.fromkeys(requests))
    _refuse_unknown([request for request in asked if request not in people])
    row_of = {request: row for row, request in enumerate(asked)}
    number: dict[str, int] = {}
    contents, kinds, ages = (np.full((len(asked), length), -1, dtype=np.int64) for _ in range(3))
    for row, request in enumerate(asked):
        for place, (days, action, words) in enumerate(done(people[request], phrases, length)):
            contents[row, place] = number.setdefault(words, len(number))
            kinds[row, place], ages[row, place] = KINDS[action], age_of(days)
    queries = np.array([number.setdefault(query, len(number)) for query in rows["query"].to_pylist()], dtype=np.int64)
    questions = Questions(
        Texts(list(number), buckets), contents, kinds, ages,
        np.array([row_of[request] for request in requests], dtype=np.int64),
        queries, rows["place"].to_numpy().astype(np.int64), np.zeros((len(rows), 0), dtype=np.float32),
    ).told(_floats(rows, OF_USER), _floats(rows, OF_QUERY), share)  # fmt: skip
    return Examples(
        questions,
        rows["clicked"].to_numpy() > 0,
        np.array(rows["user_id"].to_pylist(), dtype=object),
        np.array(requests, dtype=object),
        rows["sample_date"].cast(pa.int32()).to_numpy().astype(np.int64),
    )


def _floats(rows: pa.Table, names: Sequence[str]) -> Floats:
    columns = [rows[name].cast(pa.float32()).to_numpy() for name in names]
    return np.stack(columns, axis=1).astype(np.float32)


def _refuse_unknown(requests: Sequence[str]) -> None:
    if requests:
        raise DataError(
            f"{len(requests)} requests of {TABLE} are not in query_samples",
            where=f"requests {', '.join(requests[:5])}",
            why="what their people did before is not known",
            do="run `build_samples` and `features` for the same days",
        )


def day_of(days: Ints) -> date:
    """The newest of days since 1970."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(days.max()))).date()
