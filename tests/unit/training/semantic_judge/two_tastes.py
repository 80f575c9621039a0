"""A toy shop of two tastes: half of the users go by aspect 0 alone, half by aspect 1; their profiles tell which.

Everything is simulated: aspect scores are drawn, and the preferred item is the one that the taste says.
"""

from __future__ import annotations

import numpy as np

from training.core.backbone import BackboneConfig, build_backbone
from training.core.loop import LoopConfig
from training.core.policy.trainer import PolicyConfig
from training.core.prompts import FENCES
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.semantic_judge.aggregator import LevelWriter
from training.semantic_judge.aggregator_training import Settings
from training.semantic_judge.aspects import FUTURE, NOVELTY, PROFILE
from training.semantic_judge.contests import Contests
from training.semantic_judge.examples import Catalogue, Floats, Ints, Item, States
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
PAIRS_OF_A_USER = 3


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


def writer() -> LevelWriter:
    """Of a small tokenizer of its own."""
    vocabulary = Vocabulary.create(
        train_text_tokenizer([*TASTES, "red pen", "blue pen", wording(ASPECTS)] * 3, 450), {}, FENCES
    )
    return LevelWriter(vocabulary, ASPECTS, text_tokens=12)


def backbone(of: LevelWriter, seed: int = 3):  # noqa: ANN201
    """A fresh model."""
    return build_backbone(BACKBONE, of.vocabulary, seed)
