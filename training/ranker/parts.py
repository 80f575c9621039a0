"""Who learns from what: no signal has seen the event that it is a feature for.

The ranker learns how to mix the signals from events that those signals have not seen. So signals are fitted twice: once
on the training part before the ranker's own events (`early`), to learn the mixture, and once on all of it, to serve.
Or, with `learn_from: validation`, once: the mixture is then learnt from the validation part of most users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from training.core.errors import LeftOut
from training.next_item.sample_columns import Samples
from training.next_item.samples import SUBSETS, Split, before_held_out, of_subset
from training.ranker.signals.base import Ints, Learnt, Mask, Questions

LearnFrom = Literal["train", "validation"]
_TRAIN, _VALID, _TEST = range(len(SUBSETS))


@dataclass(frozen=True)
class Parts:
    """Samples, each with the subset that it has for its purpose. The signals of `early` learn from its training part,
    and the ranker from its validation part; it stops and is calibrated on `stop`, with the signals of `full`.

    `early` is None where the ranker learns from the validation part, `learn`: its signals are those of `full`.
    """

    full: Samples
    early: Samples | None
    learn: Samples
    stop: Samples


def parted(samples: Samples, split: Split, learn_from: LearnFrom, share: float, seed: int) -> Parts:
    """Divide samples that are split into training, validation and test.

    `train`: the ranker's events are each user's last of the training part (leave-one-out), or those of the last days,
    which hold `share` of it (time split). `validation`: those of the validation part, of all users but a `share`.

    Raises:
        LeftOut: nothing would be left for one of the purposes.
    """
    valid = of_subset(samples, "valid")
    if learn_from == "validation":
        back = _drawn_users(valid, share, seed)
        parts = Parts(samples, None, valid.chosen(valid.rows[~back]), valid.chosen(valid.rows[back]))
    else:
        train = of_subset(samples, "train")
        own = _last_of_each_user(train) if split == "leave_one_out" else _of_last_days(train, share)
        early = _relabelled(samples, train.rows[~own], train.rows[own])
        parts = Parts(samples, early, of_subset(early, "valid"), valid)
    if not (len(parts.learn) and len(parts.stop) and len(of_subset(parts.early or parts.full, "train"))):
        raise LeftOut("there are too few events to learn a ranker beside its signals", do="wait for more events")
    return parts


def _drawn_users(samples: Samples, share: float, seed: int) -> Mask:
    users = samples.users[samples.rows]
    drawn = np.random.default_rng(seed).random(len(samples.user_ids)) < share
    return np.asarray(drawn[users])


def _last_of_each_user(train: Samples) -> Mask:
    """Not of users who have one event: their signals would know nothing of them."""
    users = train.users[train.rows]
    return np.asarray((np.diff(users, append=-1) != 0) & (np.diff(users, prepend=-1) == 0))


def _of_last_days(train: Samples, share: float) -> Mask:
    days = train.days[train.rows]
    if len(days) == 0:
        return np.zeros(0, dtype=bool)
    # Whole days: what a user does on one day has one history.
    return np.asarray(days > np.quantile(days, 1.0 - share, method="lower"))


def _relabelled(samples: Samples, train: Ints, valid: Ints) -> Samples:
    subsets = np.full_like(samples.subsets, _TEST)
    subsets[train], subsets[valid] = _TRAIN, _VALID
    kept = samples.rows[np.isin(samples.rows, np.concatenate([train, valid]))]
    return replace(samples, subset_names=SUBSETS, subsets=subsets, rows=kept)


@dataclass(frozen=True)
class Rows:
    """Samples as numbers of the catalogue; each of their items must be in it (`samples.of_catalogue`)."""

    samples: Samples
    place: Ints

    @classmethod
    def of(cls, samples: Samples, catalogue: Sequence[str]) -> Rows:
        """Number the items of the samples."""
        row = {item: number for number, item in enumerate(catalogue)}
        return cls(samples, np.array([row.get(item, -1) for item in samples.item_ids], dtype=np.int64))

    def learnt(self, catalogue: int, seed: int) -> Learnt:
        """Of the training part, one sequence for each user: the past of the first sample, then what was taken."""
        train = of_subset(self.samples, "train")
        users, days = train.users[train.rows], train.days[train.rows]
        items = self.place[train.items[train.rows]]
        sequences, when = [], []
        for own in np.split(np.arange(len(train)), np.flatnonzero(np.diff(users)) + 1) if len(train) else []:
            past = self._history(train, own[0])
            sequences.append(np.concatenate([past, items[own]]))
            when.append(np.concatenate([np.full(len(past), days[own[0]] - 1), days[own]]).astype(np.int64))
        return Learnt(catalogue, sequences, when, seed=seed)

    def questions(self, asked: Samples) -> Questions:
        """Their histories, with what the training part and the feature store know of their users."""
        pasts = self._pasts()
        nothing = np.empty(0, dtype=np.int64)
        names = asked.users[asked.rows].tolist()
        histories = [self._history(asked, place) for place in range(len(asked))]
        users = [self.samples.user_ids[user] for user in names]
        told = {name: values[asked.rows] for name, values in asked.store_features.items()}
        return Questions(histories, [pasts.get(user, nothing) for user in names], users, told)

    def truth(self, asked: Samples) -> Ints:
        """What was taken: [samples]."""
        return self.place[asked.items[asked.rows]]

    def pasts_by_name(self) -> dict[str, Ints]:
        """What the training part knows of each user from before the first day on which something is held out."""
        return {self.samples.user_ids[user]: items for user, items in self._pasts().items()}

    def _pasts(self) -> Mapping[int, Ints]:
        before = before_held_out(self.samples)
        users, items = before.users[before.rows], self.place[before.items[before.rows]]
        found = {}
        for own in np.split(np.arange(len(before)), np.flatnonzero(np.diff(users)) + 1) if len(before) else []:
            found[int(users[own[0]])] = np.concatenate([self._history(before, own[0]), items[own]])
        return found

    def _history(self, samples: Samples, place: int) -> Ints:
        row = samples.rows[place]
        return self.place[samples.history[samples.starts[row] : samples.starts[row + 1]]]
