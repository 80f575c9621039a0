"""How likely each level is of answers that are a chain of levels, one token each: the grades of many texts.

Behind each text stand the levels of the first question, behind each of these those of the second, and so on. The whole
tree of what may be answered is read in the pass that reads the text, under a tree mask, so the levels of a later
question are weighed over all earlier answers and not after the likeliest one alone: exact, in one pass. With levels of
5, 3 and 3 the tree has 20 tokens, with 5, 3, 3 and 3 it has 65.

Texts go on from prompts that they share (`Prefixes`): a customer's history is read once for all the items that are
judged for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.decoding import check_room, left_padded
from training.core.errors import DataError
from training.core.precision import inference
from training.core.prefixes import Prefixes
from training.core.scoring import TOKENS_AT_ONCE
from training.core.sequences import Tokens, Tree


@dataclass(frozen=True)
class LevelChain:
    """`tokens`: of each question the tokens of its levels, in their order. DataError where there is none."""

    tokens: tuple[Tokens, ...]

    def __post_init__(self) -> None:
        if not (self.tokens and all(self.tokens)):
            raise DataError("a question has no levels to choose from", do="give each at least one token")

    @property
    def nodes(self) -> list[Tokens]:
        """The beginnings of an answer behind which a level is asked for, but the empty one; short ones first."""
        found, last = list[Tokens](), list[Tokens]([()])
        for levels in self.tokens[:-1]:
            last = [(*before, level) for before in last for level in levels]
            found += last
        return found

    @cached_property
    def seen(self) -> Tensor:
        """Which nodes [N, N] each node sees: its own beginnings and itself."""
        nodes = self.nodes
        rows = [[other == node[: len(other)] for other in nodes] for node in nodes]
        return torch.tensor(rows, dtype=torch.bool).view(len(nodes), len(nodes))

    def among_levels(self, states: Tensor, weight: Tensor) -> list[Tensor]:
        """Of each question the chances [n, beginnings, levels] of its levels behind each beginning of an answer.

        `states` [n, 1 + N, D] are the hidden states behind the text and behind each node, `weight` [V, D] is that of
        the output head. Each level is weighed among those of its question alone: what else a model might write has no
        chance under the grammar of an answer.
        """
        sizes = list(accumulate((len(levels) for levels in self.tokens[:-1]), mul, initial=1))
        parts = zip(self.tokens, torch.split(states.float(), sizes, dim=1), strict=True)
        rows = [(weight[torch.tensor(levels, device=weight.device)].float(), own) for levels, own in parts]
        return [(own @ heads.T).softmax(dim=-1) for heads, own in rows]

    def over_all(self, behind: Sequence[Tensor]) -> list[Tensor]:
        """Of each question the chances [n, levels], over all that may have been answered before: of `among_levels`."""
        return [
            joint.view(len(joint), -1, len(levels)).sum(dim=1)
            for joint, levels in zip(_joint(behind), self.tokens, strict=True)
        ]

    def of_answers(self, behind: Sequence[Tensor]) -> list[Tensor]:
        """The chances [n, answers] of whole answers, the last question's level changing fastest: of `among_levels`."""
        return _joint(behind)[-1:]


def _joint(behind: Sequence[Tensor]) -> list[Tensor]:
    """The chances [n, beginnings] of the beginnings of an answer that end with each question."""
    reached, found = behind[0].new_ones(len(behind[0]), 1), list[Tensor]()
    for own in behind:
        reached = (reached[..., None] * own).flatten(1)
        found.append(reached)
    return found


Weighed = Callable[[Sequence[Tensor]], list[Tensor]]
"""What is made of `LevelChain.among_levels`: rows [n, ...] of as many texts."""


def level_chances(
    model: PreTrainedModel, trees: Sequence[Tree], chain: LevelChain, tokens_at_once: int = TOKENS_AT_ONCE
) -> list[list[Tensor]]:
    """Of each tree and question the chances [responses, levels], float32, on the CPU, behind prompt and response.

    Prompts are read once, some at a time, and what follows them in batches of like lengths: results do not depend on
    the batches but for rounding. DataError for a prompt and a response that are longer than the model.
    """
    return _weighed(model, trees, chain, chain.over_all, tokens_at_once)


def answer_chances(
    model: PreTrainedModel, trees: Sequence[Tree], chain: LevelChain, tokens_at_once: int = TOKENS_AT_ONCE
) -> list[Tensor]:
    """Of each tree the chances [responses, answers] of every whole answer, as `level_chances` reads and refuses."""
    return [chances for (chances,) in _weighed(model, trees, chain, chain.of_answers, tokens_at_once)]


def _weighed(
    model: PreTrainedModel, trees: Sequence[Tree], chain: LevelChain, weighed: Weighed, tokens_at_once: int
) -> list[list[Tensor]]:
    longest = max((len(response) for tree in trees for response in tree.responses), default=0)
    if trees:
        check_room(model, [tree.prompt for tree in trees], 1, longest + len(chain.tokens) - 1)
    found: dict[int, list[Tensor]] = {}
    with inference(model):
        for part in _parts(trees, tokens_at_once):
            rows = _part(model, [trees[number] for number in part], chain, weighed, tokens_at_once)
            found |= dict(zip(part, rows, strict=True))
    return [found[number] for number in range(len(trees))]


def _parts(trees: Sequence[Tree], tokens_at_once: int) -> Iterator[list[int]]:
    """Trees of like prompts, as many as are read at once."""
    order = sorted(range(len(trees)), key=lambda number: len(trees[number].prompt))
    while order:
        count = max(1, tokens_at_once // len(trees[order[-1]].prompt))
        yield order[-count:]
        order = order[:-count]


def _part(
    model: PreTrainedModel, trees: Sequence[Tree], chain: LevelChain, weighed: Weighed, tokens_at_once: int
) -> list[list[Tensor]]:
    read = Prefixes.read(model, [tree.prompt for tree in trees])
    texts = [(of, response) for of, tree in enumerate(trees) for response in tree.responses]
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row][1]))
    beside = read.real.shape[1] + len(chain.nodes)
    found, start = list[list[Tensor]](), 0
    while start < len(order):
        rows = order[start : start + max(1, tokens_at_once // (beside + len(texts[order[start]][1])))]
        behind = _read(read, [texts[row] for row in rows], chain)
        found.append([chances.cpu() for chances in weighed(behind)])
        start += len(rows)
    back = torch.tensor(order).argsort()
    counts = [len(tree.responses) for tree in trees]
    parts = (torch.split(torch.cat(batches)[back], counts) for batches in zip(*found, strict=True))
    return [list(one) for one in zip(*parts, strict=True)]


def _read(read: Prefixes, texts: Sequence[tuple[int, Tokens]], chain: LevelChain) -> list[Tensor]:
    """`among_levels` of one batch: each text, padded on the left, and the whole tree behind it."""
    device, nodes = read.real.device, chain.nodes
    ids, real = left_padded([response for _, response in texts], device)
    count, width = ids.shape
    behind = torch.tensor([node[-1] for node in nodes], dtype=torch.int64, device=device).expand(count, -1)
    depth = torch.tensor([len(node) for node in nodes], dtype=torch.int64, device=device)
    seen = torch.zeros(count, width + len(nodes), width + len(nodes), dtype=torch.bool, device=device)
    seen[:, :width, :width] = real[:, None] & torch.ones(width, width, dtype=torch.bool, device=device).tril()
    seen[:, width:, :width] = real[:, None]
    seen[:, width:, width:] = chain.seen.to(device)
    lengths = real.sum(dim=1, keepdim=True)
    wanted = torch.arange(width + len(nodes), device=device) >= width - 1
    states = read.after(
        torch.tensor([of for of, _ in texts], device=device),
        torch.cat([ids, behind], dim=1),
        seen,
        torch.cat([(real.cumsum(dim=1) - 1).clamp(min=0), lengths - 1 + depth], dim=1),
        wanted.expand(count, -1),
    )
    weight = read.model.get_output_embeddings().weight
    return chain.among_levels(states.view(count, 1 + len(nodes), -1), weight)
