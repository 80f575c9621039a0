"""Rejected items for preference training, from easy to hard: self-play (SP) and real feedback (RF) of Align3GR, and
what the shop's ranker rejects.

Self-play takes what the policy itself would have recommended instead of the truth, sorted by how much of the truth's
semantic id it shares: leading codes up to the FIRST mismatch, not equal codes anywhere. The truth is never a negative.
Real feedback takes what the customer is known to have disliked (easy) or received with indifference (hard); an item
without a word from the customer is neither. The ranker rejects of the policy's own wrong answers those that it finds
less than half as likely as the likeliest of them, the least likely first (easy) or last (hard). What it finds about as
likely as that may well be what the customer takes next, and is rejected nowhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.decoding import beam_search
from training.core.device import in_shares
from training.core.preference import Preference
from training.core.progress import Progress
from training.core.trie import NO_ITEM
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.validation import Example

Level = Literal["easy", "medium", "hard", "mixed"]
# Leading codes shared with the truth: at least, and fewer than. `mixed` is self-play without an order of levels.
SHARED: Mapping[Level, tuple[int, int]] = {"easy": (0, 1), "medium": (1, 2), "hard": (2, 10**9), "mixed": (0, 10**9)}
# The ranker rejects what is less likely than this share of the likeliest. INFERRED.
UNLIKELY = 0.5
# Which of that comes first: the least likely, the likeliest, or what the policy puts first.
FIRST: Mapping[Level, int] = {"easy": 1, "medium": 0, "hard": -1, "mixed": 0}
REJECTED_BY: Mapping[Level, str] = {"easy": "disliked", "hard": "neutral"}
_CHUNK = 256


@dataclass(frozen=True)
class Choice:
    """`most` and `least`: how many rejected items a sample has; with fewer it is dropped, never filled with repeats.

    `beams`: how many recommendations of the policy's own the negatives are taken from.
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
        for part, beams, wrong in _wrong_answers(model, items, share, choice.beams, f"self-play {level}"):
            depth = depth_shared(codes, beams.clamp(min=0), torch.tensor([one.item for one in part]))
            fits = wrong & (depth >= least) & (depth < below)
            found += (row[mask].tolist() for row, mask in zip(beams, fits, strict=True))
        return found

    return _preferences(items, list(zip(examples, in_shares(rejected, examples), strict=True)), choice)


def ranker_rejects(
    model: PreTrainedModel,
    items: ItemCodes,
    examples: Sequence[Example],
    view: RankerView,
    level: Level,
    choice: Choice,
) -> Preferences:
    """The policy's own wrong answers that the ranker finds unlikely, in the order of the level, and then the policy's.

    Unlikely: p < `UNLIKELY` p_max, p the ranker's probability and p_max that of the likeliest wrong answer. What the
    ranker does not know it does not reject.
    """

    def rejected(share: Sequence[Example]) -> list[list[int]]:
        found = list[list[int]]()
        for part, beams, wrong in _wrong_answers(model, items, share, choice.beams, f"ranker {level}"):
            answers = [row[mask].tolist() for row, mask in zip(beams, wrong, strict=True)]
            asked = [[items.item_ids[row] for row in own] for own in answers]
            for own, chances in zip(answers, view.chances(part, asked), strict=True):
                unlikely = np.flatnonzero(chances < UNLIKELY * np.nanmax(chances, initial=0.0))
                order = np.argsort(FIRST[level] * chances[unlikely], kind="stable")
                found.append([own[place] for place in unlikely[order].tolist()])
        return found

    return _preferences(items, list(zip(examples, in_shares(rejected, examples), strict=True)), choice)


def _wrong_answers(
    model: PreTrainedModel, items: ItemCodes, examples: Sequence[Example], beams: int, label: str
) -> Iterator[tuple[Sequence[Example], Tensor, Tensor]]:
    """Some examples at a time, with the policy's beams [B, K] and which of them are items other than the truth."""
    with Progress(len(examples), label, "example") as progress:
        for start in range(0, len(examples), _CHUNK):
            part = examples[start : start + _CHUNK]
            found = beam_search(model, items.trie, [one.prompt for one in part], beams).items.cpu()
            yield part, found, (found != NO_ITEM) & (found != torch.tensor([one.item for one in part])[:, None])
            progress.advance(len(part))


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
