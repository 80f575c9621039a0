"""What the tokenizer sees of users and items: the meaning of their text beside their collaborative vectors.

Everything of a user is of the training part: the collaborative vector, and for meaning either the mean of the text
vectors of the training items or the profile text as it stood before the first held-out day. Profiles cost two encodings
per user and means none; a user without a profile gets the mean, which lives in the same space.

No input may hold the item that it is asked for. What is pooled gives the item back (`shares`); a profile cannot, as it
names its items in words. So a user with a profile learns the second half of the items from the profile as it stood
before them, and the first half from the mean of the others' texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.core.catalogue import item_texts, refuse_broken
from training.core.embeddings import embed_texts, kept_vectors
from training.core.errors import DataError
from training.core.stage import StageSpec, read_batches
from training.generative_rec.collaborative_vectors import CollaborativeVectors, pooled_users, pooling_weights
from training.generative_rec.interactions import Interactions, early_length
from training.next_item.samples import PROFILE, SCHEMA, NextItem, held_out_from, of_subset

_PROFILE_COLUMNS = {name: SCHEMA.field(name).type for name in ("user_id", "sample_date", PROFILE)}


@dataclass(frozen=True)
class TextConfig:
    """`semantics` none: ids only, there is no text. `users`: what describes a user, its items' texts or its profile.

    `encoder`, `max_tokens`, `fallback_text`: as in `semantic_ids`.
    """

    semantics: Literal["text", "none"] = "text"
    users: Literal["items", "profile"] = "items"
    encoder: str | None = None
    max_tokens: int = 128
    fallback_text: str | None = None


@dataclass(frozen=True)
class Inputs:
    """The parts of each side's inputs, [rows, width] each, rows as in `Interactions`.

    `early`: what `users` were at the first half of their events, rows as in `Interactions.first_halves`. `asked`: what
    may be known of those who are asked about, rows as in `told` (`build_inputs`).

    `learnt` are the inputs that events are learnt from: `rows` [events] names each one's, and `shares` [events] of each
    part say how much of it is the event's own item.
    """

    users: tuple[Tensor, ...]
    early: tuple[Tensor, ...]
    asked: tuple[Tensor, ...]
    items: tuple[Tensor, ...]
    learnt: tuple[Tensor, ...]
    rows: Tensor
    shares: tuple[Tensor, ...]
    users_without_profile: int


def build_inputs(
    spec: StageSpec,
    items: Sequence[Mapping[str, str | None]],
    samples: Sequence[NextItem],
    known: Interactions,
    told: Interactions,
    config: TextConfig,
) -> Inputs:
    """Semantic and collaborative vectors of all rows; DataError for texts or vectors that are missing or broken.

    `told`: the part of `known` that may be known of a user who is asked about (`samples.before_held_out`).
    """
    vectors = _matching(CollaborativeVectors.load(spec.artifact("collaborative")), known)
    weights, halves = pooling_weights(vectors.items, known), known.first_halves()
    early, asked = (pooled_users(vectors.items, part) for part in (halves, told))
    if config.semantics == "none":
        users, rows = (vectors.users,), known.users
        return Inputs(users, (early,), (asked,), (vectors.items,), users, rows, (weights,), len(known.user_ids))
    item_text = _embedded(spec, item_texts(items, config.fallback_text), known.item_ids, config, "item")
    means = [part.user_sums(item_text) / part.starts.diff().unsqueeze(1) for part in (known, halves, told)]
    texts = [dict[str, str]()] * 3
    if config.users == "profile":
        whole, half = (profiles(spec, end) for end in (held_out_from(samples), second_half_from(samples)))
        texts = [whole, half, whole]
    user_text, early_text, asked_text = (
        _described(spec, mean, part, text, config)
        for mean, part, text in zip(means, (known, halves, told), texts, strict=True)
    )
    rows = _rows_to_learn_from(known, halves, texts[1])
    learnt = (torch.cat([means[0], early_text]), torch.cat([vectors.users, early]))
    own = rows == known.users
    shares = ((1.0 / known.starts.diff()[known.users]).masked_fill(~own, 0.0), weights.masked_fill(~own, 0.0))
    without = len(known.user_ids) - len(texts[0].keys() & set(known.user_ids))
    return Inputs(
        (user_text, vectors.users), (early_text, early), (asked_text, asked), (item_text, vectors.items),
        learnt, rows, shares, without,
    )  # fmt: skip


def _described(
    spec: StageSpec, means: Tensor, part: Interactions, texts: Mapping[str, str], config: TextConfig
) -> Tensor:
    """The mean texts of the users of a part, those with a profile by its text: [users, width]."""
    rows = [row for row, user in enumerate(part.user_ids) if user in texts]
    if not rows:
        return means
    told, found = [part.user_ids[row] for row in rows], means.clone()
    found[rows] = _embedded(spec, [texts[user] for user in told], told, config, "user")
    return found


def _rows_to_learn_from(known: Interactions, halves: Interactions, texts: Mapping[str, str]) -> Tensor:
    """Which row of `learnt` each event has: its user's, or in a second half that of the early profile: [events]."""
    early = {user: len(known.user_ids) + row for row, user in enumerate(halves.user_ids) if user in texts}
    of_user = torch.tensor([early.get(user, row) for row, user in enumerate(known.user_ids)])
    half = early_length(known.starts.diff())
    late = torch.arange(len(known.items)) - known.starts[known.users] >= half[known.users]
    return torch.where(late, of_user[known.users], known.users)


def profiles(spec: StageSpec, end: Mapping[str, date]) -> dict[str, str]:
    """Each user's newest profile text up to the day that `end` says; users without one are left out.

    The profile of a sample tells of the days before it.
    """
    chosen: dict[str, tuple[date, str]] = {}
    batches = read_batches(spec, "next_item_training_set", _PROFILE_COLUMNS)
    for row in (row for batch in batches for row in batch.to_pylist()):
        user, day, text = row["user_id"], row["sample_date"], (row[PROFILE] or "").strip()
        if text and day <= end.get(user, date.min) and (user not in chosen or day > chosen[user][0]):
            chosen[user] = (day, text)
    return {user: text for user, (_, text) in chosen.items()}


def second_half_from(samples: Sequence[NextItem]) -> dict[str, date]:
    """The day of the first item of each user's second half; users whose second half begins before any sample have none.

    The halves are those of `Interactions.first_halves`.
    """
    train, own = of_subset(samples, "train"), defaultdict[str, list[int]](list)
    for place, (user, _, _) in enumerate(train.told()):
        own[user].append(place)
    found = dict[str, date]()
    for user, places in own.items():
        past = len(train[places[0]].history)
        half = early_length(past + len(places)) - past
        if half >= 0:
            found[user] = train[places[half]].as_of
    return found


def _matching(vectors: CollaborativeVectors, known: Interactions) -> CollaborativeVectors:
    if vectors.item_ids != known.item_ids or vectors.user_ids != known.user_ids:
        raise DataError(
            "the collaborative vectors are of other users or items",
            why=f"{len(vectors.user_ids)} users and {len(vectors.item_ids)} items, "
            f"the samples and the catalogue have {len(known.user_ids)} and {len(known.item_ids)}",
            do="run the collaborative stage again, on the same tables with the same split and sources",
        )
    return vectors


def _embedded(spec: StageSpec, texts: Sequence[str], ids: Sequence[str], config: TextConfig, kind: str) -> Tensor:
    encoder = Path(config.encoder) if config.encoder else None
    found = embed_texts(texts, kept_vectors(), encoder=encoder, max_tokens=config.max_tokens)
    refuse_broken(ids, found, kind)
    return torch.from_numpy(found.astype(np.float32))
