"""Log-probs of responses, with their prompt read once: a prompt and all its responses are one row under a tree mask.

Twenty candidates after one long prompt cost one prompt and twenty short tails, not twenty prompts. Responses do not see
each other, so each has the log-probs that it would have alone. Sums include the end token (where the response carries
one) and exclude prompt and padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.heads import entropies
from training.core.hidden import hidden_at
from training.core.masks import tree_causal
from training.core.packing import plan_rows
from training.core.precision import autocast

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """A prompt and the responses to it. DataError where one of them is empty: nothing would predict its first token."""

    prompt: Tokens
    responses: tuple[Tokens, ...]

    def __post_init__(self) -> None:
        if not (self.prompt and self.responses and all(self.responses)):
            raise DataError("a prompt or one of its responses is empty", do="give each at least one token")

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True)
class TreeBatch:
    """Rows [R, L] of trees and, in the order of the trees, their S responses of at most T tokens, all int64 but `mask`.

    `source` [S, T] is the place (in the rows laid end to end) whose hidden state predicts a token of `tokens` [S, T];
    `mask` [S, T] says which are real. `tree` [S] is the number of a response's tree in the batch.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    branches: Tensor
    source: Tensor
    tokens: Tensor
    mask: Tensor
    tree: Tensor

    @property
    def useful(self) -> int:
        """How many tokens are not padding."""
        return int((self.segments > 0).sum())

    @property
    def sequences(self) -> int:
        """How many trees there are."""
        return int(self.segments.amax(dim=1).sum())

    def to(self, device: torch.device) -> TreeBatch:
        """The same batch on another device."""
        return TreeBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class OnTrees:
    """Trees, and with what a subclass adds, in the order of the trees, a batch of the loop."""

    trees: TreeBatch

    @property
    def useful(self) -> int:
        """How many tokens are not padding."""
        return self.trees.useful

    @property
    def sequences(self) -> int:
        """How many trees there are."""
        return self.trees.sequences

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: each.to(device) for name, each in own.items() if hasattr(each, "to")}
        return replace(self, **moved)


def collate_trees(rows: Sequence[Sequence[Tree]], pad: int) -> TreeBatch:
    """Rows of trees as one batch, as wide as its longest row; a row may be empty."""
    shape = (len(rows), max(1, *(sum(map(len, row)) for row in rows)))
    layout = np.zeros((4, *shape), dtype=np.int64)
    layout[0] = pad
    sources: list[list[int]] = []
    for r, row in enumerate(rows):
        start = 0
        for number, tree in enumerate(row, start=1):
            tokens, places, parts = _layout(tree)
            end = start + len(tree)
            layout[:, r, start:end] = tokens, places, [number] * len(tree), parts
            sources += _sources(tree, r * shape[1] + start)
            start = end
    trees = [tree for row in rows for tree in row]
    responses = [response for tree in trees for response in tree.responses]
    sizes = torch.tensor([len(tree.responses) for tree in trees], dtype=torch.int64)
    lengths = torch.tensor(list(map(len, responses)), dtype=torch.int64)
    ids, positions, segments, branches = torch.from_numpy(layout)
    return TreeBatch(
        input_ids=ids,
        positions=positions,
        segments=segments,
        branches=branches,
        source=_padded(sources),
        tokens=_padded(responses),
        mask=torch.arange(max(map(len, responses), default=0)) < lengths[:, None],
        tree=torch.arange(len(trees)).repeat_interleave(sizes),
    )


def _layout(tree: Tree) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions and branches of a tree's tokens: each response goes on where the prompt ends."""
    trunk = len(tree.prompt)
    ids, positions, branches = list(tree.prompt), list(range(trunk)), [0] * trunk
    for branch, response in enumerate(tree.responses, start=1):
        ids += response
        positions += range(trunk, trunk + len(response))
        branches += [branch] * len(response)
    return ids, positions, branches


def _sources(tree: Tree, start: int) -> list[list[int]]:
    """Which place predicts each response token: the prompt's last for the first one, else the token before."""
    trunk = start + len(tree.prompt)
    first = trunk + np.cumsum([0, *map(len, tree.responses)])
    return [
        [trunk - 1, *range(place, place + len(response) - 1)]
        for place, response in zip(first.tolist(), tree.responses, strict=False)
    ]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.int64).view(len(rows), width)


def response_logits(model: PreTrainedModel, batch: TreeBatch) -> Tensor:
    """Logits [n, V], float32 at least, of the n real response tokens of a batch, row by row of `batch.mask`."""
    allowed, places = tree_causal(batch.segments, batch.branches), batch.source[batch.mask]
    hidden = hidden_at(model, batch.input_ids, allowed, batch.positions, places)
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_log_probs(logits: Tensor, batch: TreeBatch) -> Tensor:
    """Log-probs [S, T] of the response tokens under `logits` [n, V]; 0 at padding."""
    losses = torch.nn.functional.cross_entropy(logits, batch.tokens[batch.mask], reduction="none")
    return _spread(-losses, batch.mask)


def token_entropies(logits: Tensor, batch: TreeBatch) -> Tensor:
    """Entropies [S, T], in nats, of the distributions that the response tokens are drawn from; 0 at padding."""
    return _spread(entropies(logits), batch.mask)


@torch.no_grad()
def passes(
    model: PreTrainedModel, trees: Sequence[Tree], pad: int, row_tokens: int, rows: int = 16
) -> Iterator[tuple[list[int], TreeBatch, Tensor]]:
    """Every tree once, without gradients, in the precision of training: tree numbers, batch and logits of each pass.

    The responses of a batch are those of its trees, in that order.
    """
    model.eval()
    plan = plan_rows([len(tree) for tree in trees], row_tokens, None)
    for start in range(0, len(plan), rows):
        part = plan[start : start + rows]
        batch = collate_trees([[trees[number] for number in row] for row in part], pad).to(model.device)
        with autocast(model):
            logits = response_logits(model, batch)
        yield [number for row in part for number in row], batch, logits


def without_dropout(model: PreTrainedModel) -> None:
    """Switch all dropout off for good: log-probs that are compared with others must not be noisy."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def by_tree(values: Tensor, batch: TreeBatch) -> list[Tensor]:
    """`values` [S, T] of the real response tokens of each tree, end to end [n], on the CPU."""
    counts = torch.zeros(batch.sequences, dtype=torch.int64, device=batch.tree.device)
    counts.index_add_(0, batch.tree, batch.mask.sum(dim=1))
    return list(torch.split(values[batch.mask].cpu(), counts.tolist()))


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
