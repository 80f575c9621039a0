"""A toy shop of two tastes: half of the users go by aspect 0 alone, half by aspect 1; their profiles tell which.

Everything is simulated: aspect scores are drawn, and the preferred item is the one that the taste says.
"""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedModel

from training.core.backbone import BackboneConfig, build_backbone
from training.core.loop import LoopConfig
from training.core.policy.trainer import PolicyConfig
from training.core.prompts import FENCES
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.semantic_judge.aggregator import LevelWriter
from training.semantic_judge.aggregator_training import Settings
from training.semantic_judge.aspects import FUTURE, NOVELTY, PROFILE
from training.semantic_judge.contests import Contests
from training.semantic_judge.examples import (
    Cases,
    Catalogue,
    Examples,
    Floats,
    Hindsight,
    Ints,
    Item,
    Pairs,
    States,
)
from training.semantic_judge.user_prompt import wording

ASPECTS = (PROFILE, FUTURE, NOVELTY)
TASTES = ("sticks to habits", "plans far ahead")
CATALOGUE = Catalogue([Item(f"i{n}", f"{word} pen", word, "pens", 2.0 + n) for n, word in enumerate(["red", "blue"])])
BACKBONE = BackboneConfig(
    hidden_size=32, layers=2, heads=2, kv_heads=1, head_size=16, intermediate_size=48, max_positions=256
)
SETTINGS = Settings(
    start=LoopConfig(epochs=6, rows=4, row_tokens=128, learning_rate=0.003),
    policy=PolicyConfig(
        rounds=120, prompts=16, minibatch=16, rows=8, row_tokens=128, learning_rate=0.003, eval_rounds=30, patience=3
    ),
)
PAIRS_OF_A_USER = 6


def states(count: int) -> States:
    """User n, of taste n % 2, has taken both items and liked the second one."""
    starts = np.arange(0, 2 * count + 1, 2, dtype=np.int64)
    ratings = np.tile(np.array([3.0, 5.0], dtype=np.float32), count)
    history, days = np.tile(np.array([0, 1], dtype=np.int64), count), np.full(count, 19_000, dtype=np.int64)
    profiles = [f"{TASTES[n % 2]}, age {20 + n % 7}" for n in range(count)]
    return States([f"u{n}" for n in range(count)], days, starts, history, ratings, profiles, [None] * count)


def contests(users: Ints, seed: int) -> Contests:
    """Of each user some pairs whose aspect scores are drawn from a grid."""
    rng = np.random.default_rng(seed)
    state = np.repeat(users, PAIRS_OF_A_USER)
    scores = [rng.integers(0, 5, (len(state), 3)).astype(np.float32) / 4 for _ in range(2)]
    preferred, other = _by_taste(state, *scores)
    return Contests.between(state, preferred, other, np.full(len(state), "rating"))


def _by_taste(state: Ints, one: Floats, two: Floats) -> tuple[Floats, Floats]:
    rows, taste = np.arange(len(state)), state % 2
    first = one[rows, taste] >= two[rows, taste]
    return np.where(first[:, None], one, two), np.where(first[:, None], two, one)


class Told:
    """A scorer that was told the levels [items, K] of every item."""

    aspects = ASPECTS

    def __init__(self, levels: Ints) -> None:
        self._levels = levels

    def chances(self, cases: Cases) -> list[Floats]:
        """Certain of each."""
        found = self._levels[cases.item]
        return [np.eye(len(one.values), dtype=np.float32)[found[:, k]] for k, one in enumerate(self.aspects)]


def shop(users: int, seed: int = 0) -> tuple[Told, Examples, Pairs]:
    """Six pairs a user of a catalogue of 45 items, one for each vector of levels; every third user is for validation.

    Of a user's pair the preferred item has the higher level of the aspect that the user goes by, where they differ.
    """
    vectors = np.array([(a, b, c) for a in range(5) for b in range(3) for c in range(3)])
    catalogue = Catalogue([*CATALOGUE.items, *(Item(f"j{n}", f"thing {n}", None, None, None) for n in range(43))])
    told, rng, count = Told(vectors), np.random.default_rng(seed), PAIRS_OF_A_USER * users
    state = np.repeat(np.arange(users), PAIRS_OF_A_USER)
    drawn = rng.integers(45, size=(2, count))
    first = vectors[drawn[0], state % 2] >= vectors[drawn[1], state % 2]
    item = np.concatenate([np.where(first, *drawn), np.where(first, *drawn[::-1])])
    nothing = np.full(2 * count, np.nan, dtype=np.float32)
    cases = Cases(catalogue, states(users), np.tile(state, 2), item, nothing, nothing)
    none = Hindsight(
        np.zeros(2 * count + 1, dtype=np.int64), np.zeros(0, dtype=np.int64), nothing, nothing > 0, nothing > 0
    )
    subset = np.where(state % 3 == 2, 1, 0).astype(np.int8)
    rows = np.arange(count)
    pairs = Pairs(rows, rows + count, np.full(count, "rating"), subset)
    return told, Examples(cases, none, np.tile(subset, 2)), pairs


def writer() -> LevelWriter:
    """Of a small tokenizer of its own."""
    vocabulary = Vocabulary.create(
        train_text_tokenizer([*TASTES, "red pen", "blue pen", wording(ASPECTS)] * 3, 450), {}, FENCES
    )
    return LevelWriter(vocabulary, ASPECTS, text_tokens=12)


def backbone(of: LevelWriter, seed: int = 3) -> PreTrainedModel:
    """A fresh model."""
    return build_backbone(BACKBONE, of.vocabulary, seed)
