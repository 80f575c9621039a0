"""Collaborative vectors: how users are pooled from their training items, and the files that hand both sides on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.core.catalogue import refuse_broken
from training.core.checkpoint import read_tensors
from training.core.errors import DataError
from training.core.tables import read_parquet
from training.generative_rec.interactions import Interactions

_VECTORS = "collaborative.safetensors"


@dataclass(frozen=True)
class CollaborativeVectors:
    """What the stage hands on: the rows of `items` and `users` belong to `item_ids` and `user_ids`."""

    item_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    items: Tensor
    users: Tensor

    @classmethod
    def load(cls, folder: Path) -> CollaborativeVectors:
        """Read the stage's folder; DataError for a broken file, a row too many, an id twice, a vector not finite."""
        tensors = read_tensors(folder / _VECTORS)
        ids: dict[str, tuple[str, ...]] = {}
        for kind in ("item", "user"):
            table = read_parquet(f"{kind}s", [folder / f"{kind}s.parquet"], {f"{kind}_id": pa.string()})
            ids[kind] = tuple(table[f"{kind}_id"].to_pylist())
        for kind, names in ids.items():
            vectors = tensors[f"{kind}s"]
            if len(vectors) != len(names) or len(set(names)) != len(names):
                raise DataError(
                    f"{len(names)} {kind} ids ({len(set(names))} different) for {len(vectors)} vectors",
                    where=str(folder),
                    do="run the collaborative stage again",
                )
            refuse_broken(names, vectors.numpy(), kind)
        return cls(ids["item"], ids["user"], tensors["items"], tensors["users"])

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        save_file({"items": self.items.contiguous(), "users": self.users.contiguous()}, folder / _VECTORS)
        for kind, ids in (("item", self.item_ids), ("user", self.user_ids)):
            pq.write_table(pa.table({f"{kind}_id": pa.array(ids, pa.string())}), folder / f"{kind}s.parquet")


def pooled_users(items: Tensor, known: Interactions) -> Tensor:
    """Attention-pooled item vectors of each user's training items: [items, d] -> [users, d]."""
    return known.user_sums(items, pooling_weights(items, known))


def pooling_weights(items: Tensor, known: Interactions) -> Tensor:
    """The share of each event's item in its user's vector; a user's sum to 1: [items, d] -> [events].

    w = softmax over the user's items of (mean . e_i) / sqrt(d): the mean vector is the query, as in the source.
    """
    mean = known.user_sums(items) / known.starts.diff().unsqueeze(1)
    agreed = [(mean[known.users[part]] * items[known.items[part]]).sum(dim=1) for part in known.parts(items.shape[1])]
    logits = torch.cat(agreed) / math.sqrt(items.shape[1])
    top = torch.full((len(mean),), -torch.inf).scatter_reduce(0, known.users, logits, "amax")
    weights = (logits - top[known.users]).exp()
    return weights / torch.zeros(len(mean)).index_add_(0, known.users, weights)[known.users]
