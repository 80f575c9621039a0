"""A small shop whose items are cables and pens, and a language model of its own, for the scorer's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch
from transformers import PreTrainedModel

from training.core.backbone import BackboneConfig, build_backbone
from training.core.prompts import FENCES
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.semantic_judge.aspects import aspects
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Examples, Floats, Hindsight, Item, UserState
from training.semantic_judge.labelled import Labelled
from training.semantic_judge.prompts import CasePrompts, PromptConfig
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.teachers.rules import RulesConfig, RuleTeacher

DAY = date(2024, 5, 1)
WORDS = ("cable", "pen", "lamp", "chair")
TINY = BackboneConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, head_size=8, intermediate_size=64)


def encode(texts: Sequence[str]) -> Floats:
    """A direction for each of `WORDS`, and a little of it for each letter."""
    found = np.zeros((len(texts), len(WORDS) + 26), dtype=np.float32)
    for row, text in enumerate(texts):
        for place, word in enumerate(WORDS):
            found[row, place] = 3.0 * text.lower().count(word)
        for letter in text.lower():
            if "a" <= letter <= "z":
                found[row, len(WORDS) + ord(letter) - ord("a")] += 0.1
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def catalogue(items: int = 24) -> Catalogue:
    """Items `i0`, `i1`, ... of the words in turn."""
    titles = [f"{('blue', 'red', 'green')[n % 3]} {WORDS[n % len(WORDS)]} number {n}" for n in range(items)]
    return Catalogue(
        [
            Item(f"i{n}", title, f"brand {n % 5}", WORDS[n % len(WORDS)], 5.0 + n, title)
            for n, title in enumerate(titles)
        ]
    )


def users(count: int, seed: int = 0, longest: int = 6) -> list[UserState]:
    """Users with histories of 0 to `longest` items, each of one word."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        taste, length = int(rng.integers(len(WORDS))), int(rng.integers(0, longest + 1))
        history = tuple(f"i{taste + len(WORDS) * int(n)}" for n in rng.integers(0, 6, length))
        ratings = tuple(float(stars) for stars in rng.choice([1.0, 5.0], length))
        found.append(
            UserState(f"u{number}", DAY + timedelta(days=number % 3), history, ratings, f"likes {WORDS[taste]}s")
        )
    return found


def cases(count: int, each: int, seed: int = 0, of: Catalogue | None = None) -> Cases:
    """`each` random items for each of `count` users, in no order."""
    own, rng = of or catalogue(), np.random.default_rng(seed)
    asked = [(user, int(item)) for user in users(count, seed) for item in rng.choice(len(own), each, replace=False)]
    order = rng.permutation(len(asked))
    rows = [asked[place] for place in order.tolist()]
    return Cases.of(own, [user for user, _ in rows], [Candidate(f"i{item}", 4.0, 3) for _, item in rows])


def evidence(of: Catalogue | None = None, contexts: Sequence[str | None] = ()) -> Evidence:
    """The evidence of a catalogue."""
    return Evidence.of(of or catalogue(), contexts, encode, seed=1)


def vocabulary(of: Catalogue | None = None) -> Vocabulary:
    """A small one of the titles."""
    titles = [item.text for item in (of or catalogue()).items]
    return Vocabulary.create(train_text_tokenizer([*titles, *WORDS], 400), {}, FENCES)


def prompts(config: PromptConfig | None = None, of: Catalogue | None = None, context: bool = False) -> CasePrompts:
    """Prompts in the small vocabulary."""
    return CasePrompts(vocabulary(of), aspects(context), config or PromptConfig(), evidence(of))


def model(words: Vocabulary, seed: int = 0, config: BackboneConfig = TINY) -> PreTrainedModel:
    """A fresh one, whose logits are far from flat."""
    built = build_backbone(replace(config, max_positions=1024), words, seed).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(4.0 if weight.ndim > 1 else 1.0)
    return built


def scorer(config: PromptConfig | None = None, seed: int = 0, context: bool = False) -> LanguageScorer:
    """An untrained scorer."""
    asked = prompts(config, context=context)
    return LanguageScorer.of(model(asked.vocabulary, seed), asked, reason_tokens=12)


def labelled(count: int, each: int, seed: int = 0) -> Labelled:
    """Cases labelled by the rules, without hindsight: what the evidence says is all that there is to know.

    What a user will want is what fits and is not known, as nobody knows what was taken later.
    """
    own, asked = evidence(), cases(count, each, seed)
    nothing = np.zeros(len(asked) + 1, dtype=np.int64)
    unknown = np.full(len(asked), np.nan, dtype=np.float32)
    none = np.zeros(len(asked), dtype=bool)
    hindsight = Hindsight(nothing, nothing[:0], unknown, none, none)
    examples = Examples(asked, hindsight, np.zeros(len(asked), dtype=np.int8))
    scored = aspects(False)
    said = RuleTeacher(RulesConfig(), scored, own).teach(examples, np.arange(len(asked)), own.numbers(asked))
    said.levels[:, 1] = (said.levels[:, 0] >= 3) + (said.levels[:, 2] > 0)
    return Labelled(asked, said.levels, said.reasons, scored, own)
