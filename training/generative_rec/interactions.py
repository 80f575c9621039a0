"""Who touched what in the training part, as flat tensors: no Python per event once they are built.

Everything that is learnt about users comes from here, so nothing of validation or test can reach a user vector, a
pair, or the code of a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import TypeVar

import torch
from torch import Tensor

from training.core.errors import DataError, LeftOut
from training.core.ranking import rows_at_once
from training.next_item.samples import NextItem, Samples, of_subset, sequences_by_user

NO_ITEM = -1
T = TypeVar("T", int, Tensor)


@dataclass(frozen=True)
class Interactions:
    """Event e is user `users[e]` acting on item `items[e]`; a user's events stand together, oldest first.

    `user_ids` and `item_ids` name the rows; `starts` [users + 1] are the places of each user's events.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    users: Tensor
    items: Tensor
    starts: Tensor

    @classmethod
    def of_training(cls, samples: Sequence[NextItem], item_ids: Sequence[str], min_events: int) -> Interactions:
        """The training part of `samples` over a catalogue.

        Raises DataError for a user with fewer than `min_events` training items. 0 admits users that training does not
        know: they are no rows here. 1 admits users with one event: they are rows, and no sample of an encoder.
        """
        row = {item: number for number, item in enumerate(item_ids)}
        sequences = sequences_by_user(samples)
        _refuse_short(samples, sequences, min_events)
        lengths = torch.tensor([len(sequence) for sequence in sequences.values()])
        items = torch.tensor([row[item] for sequence in sequences.values() for item in sequence])
        users = torch.arange(len(sequences)).repeat_interleave(lengths)
        return cls(tuple(sequences), tuple(item_ids), users, items, run_starts(lengths))

    def first_halves(self) -> Interactions:
        """Each user's first half of the events, rounded down; users with one event are not in it."""
        lengths = early_length(self.starts.diff())
        place, has = torch.arange(len(self.items)) - self.starts[self.users], lengths > 0
        users = torch.arange(int(has.sum())).repeat_interleave(lengths[has])
        ids = tuple(compress(self.user_ids, has.tolist()))
        return Interactions(
            ids, self.item_ids, users, self.items[place < lengths[self.users]], run_starts(lengths[has])
        )

    @cached_property
    def popularity(self) -> Tensor:
        """Training events of each item: [items], float."""
        return torch.bincount(self.items, minlength=len(self.item_ids)).float()

    @cached_property
    def _pairs(self) -> Tensor:
        keys: Tensor = torch.unique(self.users * len(self.item_ids) + self.items)
        return keys

    def touched(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether users [n, 1] (or any shape that broadcasts) have touched items [m]: bool [n, m]."""
        wanted = users * len(self.item_ids) + items
        place = torch.searchsorted(self._pairs, wanted).clamp(max=len(self._pairs) - 1)
        return self._pairs[place] == wanted

    def targets(self) -> Tensor:
        """The events that have a past, which are those to learn from: [n]."""
        return (torch.arange(len(self.items)) > self.starts[self.users]).nonzero().squeeze(1)

    def histories(self, events: Tensor, length: int) -> Tensor:
        """The last `length` items of the same user before each event, oldest first: [n, length], `NO_ITEM` before."""
        place = events.unsqueeze(1) - torch.arange(length, 0, -1)
        own = place >= self.starts[self.users[events]].unsqueeze(1)
        return torch.where(own, self.items[place.clamp(min=0)], NO_ITEM)

    def parts(self, width: int) -> tuple[Tensor, ...]:
        """The events [n], as many at a time as may have a row of `width` values each: all at once are too many."""
        return torch.split(torch.arange(len(self.items)), rows_at_once(width))

    def user_sums(self, vectors: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sums over each user's events of their items' vectors [items, d], weighted by event [events]: [users, d]."""
        sums = torch.zeros(len(self.user_ids), vectors.shape[1])
        for events in self.parts(vectors.shape[1]):
            values = vectors[self.items[events]]
            sums.index_add_(0, self.users[events], values if weights is None else values * weights[events].unsqueeze(1))
        return sums

    def covisits(self, reach: int = 3) -> tuple[Tensor, Tensor]:
        """How often two items stand at most `reach` places apart: keys a * items + b (both ways, sorted), counts."""
        keys = []
        for apart in range(1, reach + 1):
            near = self.users[apart:] == self.users[:-apart]
            first, second = self.items[:-apart][near], self.items[apart:][near]
            keys += [first * len(self.item_ids) + second, second * len(self.item_ids) + first]
        found, counts = torch.unique(torch.cat(keys), return_counts=True)
        return found, counts


def early_length(events: T) -> T:
    """How many of a user's events are the first half: of a number, or of each of a tensor."""
    return events // 2


def run_starts(lengths: Tensor) -> Tensor:
    """Where runs of these lengths start, and the end: [n] -> [n + 1]."""
    return torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])


def padded_rows(histories: Sequence[Sequence[str]], item_ids: Sequence[str], length: int) -> Tensor:
    """The catalogue rows of the last `length` items of histories: [histories, length], `NO_ITEM` before."""
    row = {item: number for number, item in enumerate(item_ids)}
    rows = [[row[item] for item in history[-length:]] for history in histories]
    return torch.tensor([[NO_ITEM] * (length - len(line)) + line for line in rows])


def held_out_pairs(samples: Sequence[NextItem], part: str, known: Interactions) -> tuple[Tensor, Tensor]:
    """User rows and item rows of the samples of a part whose user training knows: [n] and [n]."""
    user = {name: number for number, name in enumerate(known.user_ids)}
    item = {name: number for number, name in enumerate(known.item_ids)}
    pairs = [(user[s.user_id], item[s.item_id]) for s in of_subset(samples, part) if s.user_id in user]
    if not pairs:
        raise LeftOut(
            f"no {part} sample is of a user that training knows",
            do="move the cut dates of the split, or choose another",
        )
    both = torch.tensor(pairs)
    return both[:, 0], both[:, 1]


def _refuse_short(samples: Sequence[NextItem], sequences: Mapping[str, Sequence[str]], min_events: int) -> None:
    events = dict.fromkeys((user for user, _, _ in Samples.of(samples).told()), 0)
    events |= {user: len(sequence) for user, sequence in sequences.items()}
    short = sorted(user for user, count in events.items() if count < min_events)
    if short:
        raise DataError(
            f"{len(short)} users have fewer than {min_events} training items",
            where=f"users {', '.join(short[:5])}{' and more' if len(short) > 5 else ''}",
            why="an encoder of sequences learns nothing from them, and a user without a training item has no vector",
            do="leave such users out of the samples, or admit them with `min_events`: 1, or 0 for users without any",
        )
