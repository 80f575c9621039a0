"""Next-item samples as the stages see them: who, what came next, what came before; split by time or leave-one-out.

In the time split two cut dates, the same for all users, divide the rows (`split_time`). Leave-one-out takes each user's
last sample for test and the one before for validation, as the papers do; what is a user's last changes with every
day, and training looks ahead of other users' tests, so it is no column of the table and for comparison only. A model
that was trained on one split has seen test items of the other: each split needs models of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from common.config import read_yaml
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, is_main_process, read_batches
from training.core.tables import refuse_nulls
from training.next_item.sample_columns import NextItem as NextItem
from training.next_item.sample_columns import Samples as Samples
from training.next_item.store_features import StoreFeatures

Split = Literal["time", "leave_one_out"]
SUBSETS = ("train", "valid", "test")
TABLE = "next_item_training_set"
COLUMNS = {
    "user_id": pa.string(),
    "sample_date": pa.date32(),
    "event_time": pa.timestamp("us", "UTC"),
    "item_id": pa.string(),
    "history_item_ids": pa.list_(pa.string()),
    "split_time": pa.string(),
}
PROFILE, RATINGS = "user_profile__profile_text", "history_ratings"
# With what some stages ask for besides.
SCHEMA = pa.schema({**COLUMNS, "feedback": pa.string(), PROFILE: pa.string(), RATINGS: pa.list_(pa.float64())})
_WORDS = ("user_id", "sample_date", "item_id", "feedback")
_KNOWN = ("liked", "neutral", "disliked")
_COLUMNS = ("user_id", "sample_date", "item_id", "history_item_ids", "split_time")


def read_samples(
    spec: StageSpec, split: Split, table: str = TABLE, *, store: Mapping[str, pa.DataType] | None = None
) -> Samples:
    """All samples by user, event time and item, whatever the order of the files.

    What a user did with an item on one day (looked at it, then bought it) is one sample, at its first time: the item
    would stand before itself in the user's sequence, and be test and training at once under leave-one-out.
    `store`: the features of the user that each has besides (`store_features`); in files of before they are unknown.
    Raises DataError for a row without one of its values and for a subset other than train, valid and test, LeftOut for
    a split without training samples.
    """
    times: list[NDArray[np.int64]] = []
    found = Samples.of_tables(_batches(spec, table, times, store or {})).sorted(np.concatenate(times)).once_a_day()
    parted = leave_one_out(found) if split == "leave_one_out" else found
    subsets = {parted.subset_names[subset] for subset in np.unique(parted.subsets[parted.rows])}
    do = "check the cut dates of the split against the days of the data"
    if not subsets <= set(SUBSETS):
        known = f"it has {', '.join(sorted(subsets))}"
        raise DataError(f"the {split} split has subsets other than {', '.join(SUBSETS)}", where=table, why=known, do=do)
    if "train" not in subsets:
        raise LeftOut(f"the {split} split has no training samples", where=table, do=do)
    return parted


def _batches(
    spec: StageSpec, table: str, times: list[NDArray[np.int64]], store: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """The columns of `Samples`, some rows at a time; `times` gets the event times of all."""
    for batch in read_batches(spec, table, {**COLUMNS, **store}, later=store):
        refuse_nulls(table, batch, COLUMNS)
        times.append(batch["event_time"].cast(pa.int64()).to_numpy())
        yield batch.select([*_COLUMNS, *store])


def leave_one_out(samples: Sequence[NextItem]) -> Samples:
    """The same samples, ordered by user and time, each user's last as `test` and the one before as `valid`."""
    own = Samples.of(samples)
    users, place = own.users[own.rows], np.arange(len(own))
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    after = last[np.searchsorted(last, place)] - place
    subsets = np.zeros_like(own.subsets)
    subsets[own.rows] = np.clip(2 - after, 0, 2)  # the places in SUBSETS
    return replace(own, subset_names=SUBSETS, subsets=subsets)


def model_folder(split: Split) -> str:
    """Where a stage puts the model that it trained on this split; the time split's is the one that is served."""
    return "model" if split == "time" else f"model_{split}"


def refuse_other_split(folder: Path, split: Split) -> None:
    """DataError if the stage in `folder` learnt from the training set of another split: test items of this one may be
    in it. A stage that learns from no split, as ids of text do, fits all."""
    path = folder / "config.yaml"
    config = read_yaml(path) if path.is_file() else {}
    learnt = config.get("split", config.get("protocol"))  # the key's name in folders of before 2026-11-26
    if learnt not in (None, split):
        raise DataError(
            f"vectors or codes of the split {learnt} are asked for in a run of {split}",
            where=str(folder),
            why="what one split trains on, another one tests",
            do="give all stages of a run the same `split`",
        )


def of_subset(samples: Sequence[NextItem], subset: str) -> Samples:
    """The samples of one subset, in their order."""
    return Samples.of(samples).of_subset(subset)


def sequences_by_user(samples: Sequence[NextItem]) -> dict[str, list[str]]:
    """Each user's items of the training set, oldest first: the past of the first sample, then every target."""
    train, found = of_subset(samples, "train"), dict[str, list[str]]()
    for place, (user, _, item) in enumerate(train.told()):
        if user not in found:
            found[user] = [*train[place].history]
        found[user].append(item)
    return found


def last_told(samples: Samples) -> dict[str, StoreFeatures]:
    """What the feature store said of each user before the last of the training samples, which are in order."""
    train = samples.of_subset("train")
    ends = np.flatnonzero(np.diff(train.users[train.rows], append=-1))
    return {one.user_id: one.store_features for one in train.chosen(train.rows[ends])}


def held_out_from(samples: Sequence[NextItem]) -> dict[str, date]:
    """The first day on which something of each user is held out; the end of days for users who are not asked about."""
    first = dict.fromkeys((user for user, _, _ in Samples.of(samples).told()), date.max)
    for user, day, _ in (key for subset in SUBSETS[1:] for key in of_subset(samples, subset).told()):
        first[user] = min(day, first[user])
    return first


def before_held_out(samples: Sequence[NextItem]) -> Samples:
    """The training samples of days before the first one on which something of their user is held out.

    What may be known of a user who is asked about: on a day without an order the other items may be newer than the
    answer. In the time split these are all training samples.
    """
    first, train = held_out_from(samples), of_subset(samples, "train")
    before = np.fromiter((day < first[user] for user, day, _ in train.told()), dtype=bool, count=len(train))
    return train.chosen(train.rows[before])


def training_sequences(samples: Sequence[NextItem]) -> list[list[str]]:
    """The sequences of `sequences_by_user`, in the order of the users."""
    return list(sequences_by_user(samples).values())


def training_feedback(spec: StageSpec, samples: Sequence[NextItem]) -> list[tuple[str, str, str]]:
    """User, item and level (`liked`, `neutral`, `disliked`) of the training set, where something is known."""
    said = list[dict[str, Any]]()
    for batch in read_batches(spec, TABLE, {name: SCHEMA.field(name).type for name in _WORDS}):
        said += batch.filter(pc.is_in(batch["feedback"], pa.array(_KNOWN))).to_pylist()
    asked = {(row["user_id"], row["sample_date"], row["item_id"]) for row in said}
    train = asked.intersection(of_subset(samples, "train").told())
    return [
        (row["user_id"], row["item_id"], row["feedback"])
        for row in said
        if (row["user_id"], row["sample_date"], row["item_id"]) in train
    ]


def of_catalogue(samples: Sequence[NextItem], catalogue: Sequence[str]) -> Samples:
    """The samples without the items that the catalogue does not have (any more): as answers, and in histories.

    Nothing is learnt that cannot be recommended. The log names the first of them; DataError where no training sample is
    left.
    """
    columns, known = Samples.of(samples), frozenset(catalogue)
    gone = sorted(set(columns.item_ids) - known)
    if not gone:
        return columns
    kept = columns.within(known)
    told = f"{len(gone)} items of the samples are not in the catalogue: items {', '.join(gone[:5])}"
    if not of_subset(kept, "train"):
        raise DataError(told, do="build the samples and the catalogue from snapshots of the same day")
    if is_main_process():
        sys.stderr.write(f"warning: {told}; {len(columns) - len(kept)} of {len(columns)} samples are not learnt\n")
    return kept
