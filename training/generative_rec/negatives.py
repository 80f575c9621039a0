"""Rejected items for preference training, from easy to hard: self-play (SP) and real feedback (RF) of Align3GR.

Self-play takes what the policy itself would have recommended instead of the truth, sorted by how much of the truth's
semantic id it shares: leading codes up to the FIRST mismatch, not equal codes anywhere. The truth is never a negative.
Real feedback takes what the customer is known to have disliked (easy) or received with indifference (hard); an item
without a word from the customer is neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.decoding import beam_search
from training.core.device import in_shares
from training.core.preference import Preference
from training.core.progress import Progress
from training.core.trie import NO_ITEM
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.validation import Example

Level = Literal["easy", "medium", "hard", "mixed"]
# Leading codes shared with the truth: at least, and fewer than. `mixed` is self-play without an order of levels.
SHARED: Mapping[Level, tuple[int, int]] = {"easy": (0, 1), "medium": (1, 2), "hard": (2, 10**9), "mixed": (0, 10**9)}
REJECTED_BY: Mapping[Level, str] = {"easy": "disliked", "hard": "neutral"}
_CHUNK = 256


@dataclass(frozen=True)
class Choice:
    """`most` and `least`: how many rejected items a sample has; with fewer it is dropped, never filled with repeats.

    `beams`: how many recommendations self-play takes the negatives from.
    """

    most: int = 20
    least: int = 5
    beams: int = 100


class Preferences(NamedTuple):
    """What there is to learn from, and how many samples were dropped for having too few rejected items."""

    kept: list[Preference]
    dropped: int


def shared_codes(items: ItemCodes) -> Tensor:
    """Codes of the catalogue as a matrix [items, depth] of token ids, -1 after the end; see `depth_shared`."""
    depth = max(map(len, items.tokens))
    return torch.tensor([[*tokens, *[-1] * (depth - len(tokens))] for tokens in items.tokens])


def depth_shared(codes: Tensor, candidates: Tensor, truth: Tensor) -> Tensor:
    """How many leading codes each candidate [B, K] shares with the truth [B] of its row, up to the first mismatch."""
    same = codes[candidates] == codes[truth][:, None]
    return same.long().cumprod(dim=2).sum(dim=2)


def self_play(
    model: PreTrainedModel, items: ItemCodes, examples: Sequence[Example], level: Level, choice: Choice
) -> Preferences:
    """The policy's own best wrong answers of this level, in its order."""
    codes, (least, below) = shared_codes(items), SHARED[level]

    def rejected(share: Sequence[Example]) -> list[list[int]]:
        found = list[list[int]]()
        with Progress(len(share), f"self-play {level}", "example") as progress:
            for start in range(0, len(share), _CHUNK):
                part = share[start : start + _CHUNK]
                beams = beam_search(model, items.trie, [one.prompt for one in part], choice.beams).items.cpu()
                truth = torch.tensor([one.item for one in part])
                depth = depth_shared(codes, beams.clamp(min=0), truth)
                fits = (beams != NO_ITEM) & (beams != truth[:, None]) & (depth >= least) & (depth < below)
                found += (row[mask].tolist() for row, mask in zip(beams, fits, strict=True))
                progress.advance(len(part))
        return found

    return _preferences(items, list(zip(examples, in_shares(rejected, examples), strict=True)), choice)


def real_feedback(
    items: ItemCodes,
    examples: Sequence[Example],
    feedback: Iterable[tuple[str, str, str]],
    level: Level,
    choice: Choice,
) -> Preferences:
    """`feedback`: (user, item, level) of the training part. Chosen are liked items, rejected those of `REJECTED_BY`.

    A customer's best word on an item counts: what was ever liked is rejected nowhere.
    """
    said: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for user, item, word in feedback:
        said[user][word].add(items.row[item])
    pairs = []
    for example in examples:
        words = said[example.user_id]
        if example.item in words["liked"]:
            better = words["liked"] | (words["neutral"] if level == "easy" else set())
            pairs.append((example, sorted(words[REJECTED_BY[level]] - better)))
    return _preferences(items, pairs, choice)


def _preferences(items: ItemCodes, pairs: Sequence[tuple[Example, Sequence[int]]], choice: Choice) -> Preferences:
    kept = [
        Preference(example.prompt, items.tokens[example.item], tuple(items.tokens[n] for n in rows[: choice.most]))
        for example, rows in pairs
        if len(rows) >= choice.least
    ]
    return Preferences(kept, len(pairs) - len(kept))
