"""Next-item samples as the stages see them: who, what came next, what came before; split by time or leave-one-out.

In the time split two cut dates, the same for all users, part the rows (`split_time`). Leave-one-out takes each user's
last sample for test and the one before for validation, as the papers do; what is a user's last changes with every
day, and training looks ahead of other users' tests, so it is no column of the table and for comparison only. A model
that was trained on one split has seen test items of the other: each split needs models of its own.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow as pa
import yaml

from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, is_main_process, read_table
from training.core.tables import refuse_nulls

Protocol = Literal["time", "leave_one_out"]
PARTS = ("train", "valid", "test")
TABLE = "next_item_training_set"
COLUMNS = {
    "user_id": pa.string(),
    "sample_date": pa.date32(),
    "event_time": pa.timestamp("us", "UTC"),
    "item_id": pa.string(),
    "history_item_ids": pa.list_(pa.string()),
    "split_time": pa.string(),
}
PROFILE = "user_profile__profile_text"
# With what some stages ask for besides.
SCHEMA = pa.schema({**COLUMNS, "feedback": pa.string(), PROFILE: pa.string()})
_WORDS = ("user_id", "sample_date", "item_id", "feedback")
_ORDER = ("user_id", "event_time", "item_id")


@dataclass(frozen=True)
class NextItem:
    """`history`: what the user did strictly before the day `as_of`, oldest first; `item_id`: what the user did then."""

    user_id: str
    as_of: date
    item_id: str
    history: tuple[str, ...]
    part: str


def read_samples(spec: StageSpec, protocol: Protocol, table: str = TABLE) -> list[NextItem]:
    """All samples by user, event time and item, whatever the order of the files.

    What a user did with an item on one day (looked at it, then bought it) is one sample, at its first time: the item
    would stand before itself in the user's sequence, and be test and training at once under leave-one-out.
    Raises DataError for a row without one of its values and for a part other than train, valid and test, LeftOut for a
    split without training samples.
    """
    found = read_table(spec, table, COLUMNS)
    refuse_nulls(table, found, COLUMNS)
    ordered = found.sort_by([(name, "ascending") for name in _ORDER])
    rows = ordered.drop_columns("event_time").to_pylist()  # for the first time of all, pyarrow would import pandas
    once = dict[tuple[str, date, str], NextItem]()
    for row in rows:
        key = row["user_id"], row["sample_date"], row["item_id"]
        once.setdefault(key, NextItem(*key, tuple(row["history_item_ids"]), row["split_time"]))
    samples = list(once.values())
    parted = leave_one_out(samples) if protocol == "leave_one_out" else samples
    parts = {sample.part for sample in parted}
    do = "check the cut dates of the split against the days of the data"
    if not parts <= set(PARTS):
        known = f"it has {', '.join(sorted(parts))}"
        raise DataError(f"the {protocol} split has parts other than {', '.join(PARTS)}", where=table, why=known, do=do)
    if "train" not in parts:
        raise LeftOut(f"the {protocol} split has no training samples", where=table, do=do)
    return parted


def leave_one_out(samples: Sequence[NextItem]) -> list[NextItem]:
    """The same samples, ordered by user and time, each user's last as `test` and the one before as `valid`."""
    after = [0] * len(samples)
    for row in range(len(samples) - 2, -1, -1):
        after[row] = after[row + 1] + 1 if samples[row].user_id == samples[row + 1].user_id else 0
    part = {0: "test", 1: "valid"}
    return [replace(sample, part=part.get(n, "train")) for sample, n in zip(samples, after, strict=True)]


def model_folder(protocol: Protocol) -> str:
    """Where a stage puts the model that it trained on this split; the time split's is the one that is served."""
    return "model" if protocol == "time" else f"model_{protocol}"


def refuse_other_split(folder: Path, protocol: Protocol) -> None:
    """DataError if the stage in `folder` learnt from the training part of another split: test items of this one may be
    in it. A stage that learns from no split, as ids of text do, fits all."""
    path = folder / "config.yaml"
    learnt = yaml.safe_load(path.read_text()).get("protocol") if path.is_file() else None
    if learnt not in (None, protocol):
        raise DataError(
            f"vectors or codes of the split {learnt} are asked for in a run of {protocol}",
            where=str(folder),
            why="what one split trains on, another one tests",
            do="give all stages of a run the same `protocol`",
        )


def of_part(samples: Sequence[NextItem], part: str) -> list[NextItem]:
    """The samples of one part, in their order."""
    return [sample for sample in samples if sample.part == part]


def sequences_by_user(samples: Sequence[NextItem]) -> dict[str, list[str]]:
    """Each user's items of the training part, oldest first: the past of the first sample, then every target."""
    by_user: dict[str, list[NextItem]] = defaultdict(list)
    for sample in of_part(samples, "train"):
        by_user[sample.user_id].append(sample)
    return {user: [*rows[0].history, *(row.item_id for row in rows)] for user, rows in by_user.items()}


def held_out_from(samples: Sequence[NextItem]) -> dict[str, date]:
    """The first day on which something of each user is held out; the end of days for users who are not asked about."""
    first = dict.fromkeys((sample.user_id for sample in samples), date.max)
    for sample in samples:
        if sample.part != "train":
            first[sample.user_id] = min(sample.as_of, first[sample.user_id])
    return first


def before_held_out(samples: Sequence[NextItem]) -> list[NextItem]:
    """The training samples of days before the first one on which something of their user is held out.

    What may be known of a user who is asked about: on a day without an order the other items may be newer than the
    answer. In the time split these are all training samples.
    """
    first = held_out_from(samples)
    return [one for one in of_part(samples, "train") if one.as_of < first[one.user_id]]


def training_sequences(samples: Sequence[NextItem]) -> list[list[str]]:
    """The sequences of `sequences_by_user`, in the order of the users."""
    return list(sequences_by_user(samples).values())


def training_feedback(spec: StageSpec, samples: Sequence[NextItem]) -> list[tuple[str, str, str]]:
    """User, item and level (`liked`, `neutral`, `disliked`, `unknown`) of the training part."""
    train = {(sample.user_id, sample.as_of, sample.item_id) for sample in of_part(samples, "train")}
    rows = read_table(spec, TABLE, {name: SCHEMA.field(name).type for name in _WORDS}).to_pylist()
    return [
        (row["user_id"], row["item_id"], row["feedback"])
        for row in rows
        if (row["user_id"], row["sample_date"], row["item_id"]) in train
    ]


def of_catalogue(samples: Sequence[NextItem], catalogue: Sequence[str]) -> list[NextItem]:
    """The samples without the items that the catalogue does not have (any more): as answers, and in histories.

    Nothing is learnt that cannot be recommended. The log names the first of them; DataError where no training sample is
    left.
    """
    known = set(catalogue)
    gone = sorted({item for s in samples for item in (s.item_id, *s.history) if item not in known})
    if not gone:
        return list(samples)
    kept = [
        replace(sample, history=tuple(item for item in sample.history if item in known))
        for sample in samples
        if sample.item_id in known
    ]
    told = f"{len(gone)} items of the samples are not in the catalogue: items {', '.join(gone[:5])}"
    if not of_part(kept, "train"):
        raise DataError(told, do="build the samples and the catalogue from snapshots of the same day")
    if is_main_process():
        sys.stderr.write(f"warning: {told}; {len(samples) - len(kept)} of {len(samples)} samples are not learnt\n")
    return kept
