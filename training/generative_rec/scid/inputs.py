"""What the tokenizer sees of users and items: the meaning of their text beside their collaborative vectors.

Everything of a user is of the training part: the collaborative vector, and for meaning either the mean of the text
vectors of the training items or the profile text as it stood before the first held-out day. Profiles cost an encoding
per user and means none; a user without a profile gets the mean, which lives in the same space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from training.core.embeddings import embed_texts
from training.core.errors import DataError
from training.core.stage import StageSpec, read_batches
from training.generative_rec.catalogue import item_texts, refuse_broken
from training.generative_rec.collaborative_vectors import CollaborativeVectors, pooled_users, pooling_weights
from training.generative_rec.interactions import Interactions
from training.generative_rec.samples import PROFILE, SCHEMA, NextItem, of_part

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

    `shares` [events] of each part say how much of the user's vector is the event's own item. `early`: what `users` were
    at the first half of their events, rows as in `Interactions.first_halves`; profiles are not used for it.
    """

    users: tuple[Tensor, ...]
    early: tuple[Tensor, ...]
    items: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    users_without_profile: int


def build_inputs(
    spec: StageSpec,
    items: Sequence[Mapping[str, str | None]],
    samples: Sequence[NextItem],
    known: Interactions,
    config: TextConfig,
) -> Inputs:
    """Semantic and collaborative vectors of all rows; DataError for texts or vectors that are missing or broken."""
    vectors = _matching(CollaborativeVectors.load(spec.artifact("collaborative")), known)
    weights, halves = pooling_weights(vectors.items, known), known.first_halves()
    early = pooled_users(vectors.items, halves)
    if config.semantics == "none":
        return Inputs((vectors.users,), (early,), (vectors.items,), (weights,), len(known.user_ids))
    item_text = _embedded(spec, item_texts(items, config.fallback_text), known.item_ids, config, "item")
    user_text, early_text = _mean_texts(item_text, known), _mean_texts(item_text, halves)
    share = 1.0 / known.starts.diff()[known.users]
    texts = profiles(spec, samples) if config.users == "profile" else {}
    rows = [row for row, user in enumerate(known.user_ids) if user in texts]
    if rows:
        told = [known.user_ids[row] for row in rows]
        user_text[rows] = _embedded(spec, [texts[user] for user in told], told, config, "user")
        share = share.masked_fill(torch.isin(known.users, torch.tensor(rows)), 0.0)
    without = len(known.user_ids) - len(rows)
    users, early_users = (user_text, vectors.users), (early_text, early)
    return Inputs(users, early_users, (item_text, vectors.items), (share, weights), without)


def _mean_texts(texts: Tensor, known: Interactions) -> Tensor:
    """The mean text vector of each user's events: [items, width] -> [users, width]."""
    return known.user_sums(texts[known.items]) / known.starts.diff().unsqueeze(1)


def profiles(spec: StageSpec, samples: Sequence[NextItem]) -> dict[str, str]:
    """Each user's newest profile text that tells of training days only; users without one are left out.

    The profile of a sample tells of the days before it: the one of the first held-out day is the last that may be read.
    """
    end: dict[str, date] = {}
    for user, day, _ in (key for part in ("valid", "test") for key in of_part(samples, part).told()):
        end[user] = min(day, end.get(user, day))
    chosen: dict[str, tuple[date, str]] = {}
    batches = read_batches(spec, "next_item_training_set", _PROFILE_COLUMNS)
    for row in (row for batch in batches for row in batch.to_pylist()):
        user, day, text = row["user_id"], row["sample_date"], (row[PROFILE] or "").strip()
        if text and day <= end.get(user, day) and (user not in chosen or day > chosen[user][0]):
            chosen[user] = (day, text)
    return {user: text for user, (_, text) in chosen.items()}


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
    found = embed_texts(texts, spec.out_dir / "embeddings", encoder=encoder, max_tokens=config.max_tokens)
    refuse_broken(ids, found, kind)
    return torch.from_numpy(found.astype(np.float32))
