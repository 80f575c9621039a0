"""The catalogue as a static trie in CSR form: three flat tensors on the device of the model.

Nodes are numbered breadth first, so the children of node n are the nodes `first_child[n] .. first_child[n + 1] - 1`,
in ascending order of their token. Node 0 is the root. A leaf is exactly ONE item. Size is linear in the number of
codes, never in the vocabulary (STATIC, arXiv 2602.22647, keeps the same index per code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.errors import DataError

ROOT = 0
NO_ITEM = -1
_NO_TOKEN = -1


class DeadPrefix(DataError):
    """A token sequence that no item of the catalogue begins with."""


@dataclass(frozen=True)
class Trie:
    """`first_child` [N + 1], `token` [N] (token id that leads to a node), `item` [N] (`NO_ITEM` for inner nodes).

    `depth` is the length of the longest item in tokens. All tensors are int64.
    """

    first_child: Tensor
    token: Tensor
    item: Tensor
    depth: int

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> Trie:
        """Build from the token ids of each item; the item's number is its row. Depths may differ.

        Raises DataError for an empty catalogue, an item without tokens, two items with the same tokens, or an item
        whose tokens begin another item's.
        """
        if not sequences:
            raise DataError("the catalogue is empty", do="give at least one item with codes")
        rows = _padded(sequences)
        order = np.lexsort(rows.T[::-1])
        parents, tokens, leaves = _number_nodes(rows[order])
        children = np.bincount(parents, minlength=len(tokens) + 1)
        _check_leaves(order, leaves, children)
        item = np.full(len(tokens) + 1, NO_ITEM, dtype=np.int64)
        item[leaves] = order
        first_child = np.concatenate(([1], 1 + np.cumsum(children)))
        token = np.concatenate(([_NO_TOKEN], tokens))
        return cls(torch.from_numpy(first_child), torch.from_numpy(token), torch.from_numpy(item), rows.shape[1])

    def to(self, device: torch.device) -> Trie:
        """The same trie on another device."""
        return Trie(self.first_child.to(device), self.token.to(device), self.item.to(device), self.depth)

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The children [..., C] of `nodes` [...], and which are real (others are ROOT); C is the most that one has."""
        first, end = self.first_child[nodes][..., None], self.first_child[nodes + 1][..., None]
        child = first + torch.arange(int((end - first).max()), device=nodes.device)
        real = child < end
        return torch.where(real, child, ROOT), real

    def reaching(self, items: Tensor) -> Tensor:
        """Which nodes [N] lead to at least one of the `items` (row numbers): the trie of a part of the catalogue."""
        part = torch.zeros(int(self.item.max()) + 1, dtype=torch.bool, device=items.device)
        part[items] = True
        flags = (self.item != NO_ITEM) & part[self.item]
        parent = self._parents()
        for _ in range(self.depth):
            flags[parent[1:][flags[1:]]] = True
        return flags

    def _parents(self) -> Tensor:
        """The parent of each node [N]; the root is its own."""
        nodes = torch.arange(len(self.token), device=self.token.device)
        return torch.cat([nodes[:1], nodes.repeat_interleave(self.first_child.diff())])

    def walk(self, tokens: Sequence[int]) -> int:
        """The node that `tokens` lead to from the root; DeadPrefix if no item begins with them."""
        node = ROOT
        for depth, token in enumerate(tokens):
            first, end = int(self.first_child[node]), int(self.first_child[node + 1])
            child = first + int(torch.searchsorted(self.token[first:end], token))
            if child >= end or int(self.token[child]) != token:
                raise DeadPrefix(
                    f"no item begins with the tokens {list(tokens[: depth + 1])}",
                    do="the codes are of another catalogue or vocabulary: use the ones of this checkpoint",
                )
            node = child
        return node

    def items_of(self, tokens: Tensor) -> Tensor:
        """The item [B] that each row of `tokens` [B, T] begins with; `NO_ITEM` for a row that is no item."""
        # Nodes are in the order of (parent, token), so one sorted list of both finds any child.
        width = 1 + int(max(self.token.max(), tokens.max()))
        keys = self._parents() * width + self.token.clamp(min=0)
        node = torch.full_like(tokens[:, 0], ROOT)
        found = torch.full_like(node, NO_ITEM)
        for column in tokens.T:
            place = torch.searchsorted(keys[1:], node * width + column).clamp(max=len(keys) - 2) + 1
            known = (keys[place] == node * width + column) & (found == NO_ITEM)
            node = torch.where(known, place, len(keys))  # a node that has no children
            found = torch.where(known, self.item[place], found)
        return found

    def item_of(self, tokens: Sequence[int]) -> int:
        """The item with exactly these tokens; DeadPrefix if there is none."""
        item = int(self.item[self.walk(tokens)])
        if item == NO_ITEM:
            raise DeadPrefix(f"the tokens {list(tokens)} stop short of an item", do="give all tokens of the item")
        return item


def _padded(sequences: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    if lengths.min() == 0:
        raise DataError(f"item {int(lengths.argmin())} has no tokens", do="give every item at least one code")
    rows = np.full((len(sequences), lengths.max()), _NO_TOKEN, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(s) for s in sequences])
    return rows


def _number_nodes(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Parent and token of nodes 1..N in breadth-first order, and the leaf of each (sorted) row."""
    node = np.zeros(len(rows), dtype=np.int64)
    differs = np.zeros(len(rows), dtype=bool)
    differs[0] = True
    parents, tokens, count = [], [], 0
    for column in rows.T:
        differs[1:] |= column[1:] != column[:-1]
        begins = differs & (column != _NO_TOKEN)
        parents.append(node[begins])
        tokens.append(column[begins])
        node = np.where(column != _NO_TOKEN, count + np.cumsum(begins), node)
        count += int(begins.sum())
    return np.concatenate(parents), np.concatenate(tokens), node


def _check_leaves(order: NDArray[np.int64], leaves: NDArray[np.int64], children: NDArray[np.int64]) -> None:
    same = np.flatnonzero(leaves[1:] == leaves[:-1])
    if len(same):
        first, second = order[same[0]], order[same[0] + 1]
        raise DataError(
            f"items {first} and {second} have the same codes", do="give colliding items one further code each"
        )
    inner = np.flatnonzero(children[leaves])
    if len(inner):
        raise DataError(
            f"the codes of item {order[inner[0]]} begin those of another item",
            do="give every item of a collision a further code, the first one too",
        )
