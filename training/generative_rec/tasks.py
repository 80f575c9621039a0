"""The tasks of multi-task SFT: where each finds its samples, and the mixture that one epoch is made of.

Base tasks after LC-Rec; the customer's semantic id in every prompt and the two ways between a customer's text and id
are Align3GR's (section 1.4). Everything here is made from the training part alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from training.core.catalogue import ItemText
from training.core.errors import DataError
from training.core.packing import Samples
from training.core.prompts import Bindings, Codes, Template, Writer, load_templates
from training.generative_rec.interactions import early_length
from training.generative_rec.item_codes import ItemCodes

Rng = np.random.Generator
TITLES_OF_HISTORY = 5
CODE_SLOTS = frozenset({"user", "history", "item"})
TEXT_SLOTS = frozenset({"titles", "title", "text", "profile", "intent"})
_BACKWARDS = 0.5


@dataclass(frozen=True)
class Augmentation:
    """An epoch has `variants` copies of a sequence, a share `reverse` backwards, a share `drop` of items left out.

    A copy that runs backwards teaches that what goes with what holds both ways. Where it does not, it is the wrong
    lesson: `reverse` chosen on `validation` is 0 where the order of the items matters there, and a half elsewhere.
    A share `anonymous` does not say whose it is, as the prompt of a customer whom training does not know: else the
    model would never have begun a list without a code. The others have the code of their first half of the items and
    learn the second: the code in the end is pooled over all of them, and would teach to look the answers up.
    """

    variants: int = 4
    reverse: float | Literal["validation"] = "validation"
    drop: float = 0.2
    anonymous: float = 0.5

    def backwards(self, ordered: bool) -> float:
        """The share of reversed copies; `ordered`: whether the order of the items matters."""
        if self.reverse == "validation":
            return 0.0 if ordered else _BACKWARDS
        return self.reverse


@dataclass(frozen=True)
class Corpus:
    """The training part: `sequences` of item ids by user, oldest first; texts and profiles where there are any.

    `ordered`: whether the order of the items in a sequence matters, see `Augmentation`.
    """

    items: ItemCodes
    sequences: Mapping[str, Sequence[str]]
    texts: Mapping[str, ItemText] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)
    history: int = 20
    augmentation: Augmentation = field(default_factory=Augmentation)
    ordered: bool = False

    def codes(self, items: Sequence[str], last: int | None = None) -> Codes:
        """The tokens of the `last` of these items; of a history if it is not said how many."""
        kept = items[-(last or self.history) :]
        return tuple(token for item in kept for token in self.items.of(item))

    def text(self, item: str) -> dict[str, str]:
        """The text slots of an item; empty where the shop says nothing of it."""
        found = self.texts.get(item)
        return {} if found is None else {"title": found.title, "text": found.text, "intent": found.intent}

    def profile(self, user: str) -> dict[str, str]:
        """The profile slot of a user; empty where there is none."""
        return {"profile": self.profiles[user]} if user in self.profiles else {}


def changed(sequence: Sequence[str], corpus: Corpus, rng: Rng) -> list[str]:
    """A copy with some items left out, sometimes backwards; never empty, at most `history` items and one."""
    change = corpus.augmentation
    keep = rng.random(len(sequence)) >= change.drop
    kept = [item for item, stays in zip(sequence, keep, strict=True) if stays] or list(sequence)
    direction = -1 if rng.random() < change.backwards(corpus.ordered) else 1
    return kept[::direction][-corpus.history - 1 :]


def _whole_sequences(corpus: Corpus, rng: Rng) -> Iterator[Bindings]:
    """Every item of a sequence after the ones before it, in one pass: the history is empty, the items all come next.

    A named copy has an item of the past at least: no customer is named before an empty history (`ItemCodes.prompt`).
    """
    for user, sequence in corpus.sequences.items():
        code = corpus.items.early.get(user, ())
        for _ in range(corpus.augmentation.variants):
            early = early_length(len(sequence))
            # A code of another split may know a customer of whom this one has no earlier half.
            named = rng.random() >= corpus.augmentation.anonymous and bool(code) and early > 0
            half = early if named else 0
            items = changed(sequence[half:], corpus, rng)[-corpus.history - (not named) :]
            room = corpus.history + 1 - len(items)
            past = corpus.codes(sequence[max(0, half - room) : half])
            yield {"user": code if named else (), "history": past, "item": corpus.codes(items, corpus.history + 1)}


def _next_items(corpus: Corpus, rng: Rng) -> Iterator[Bindings]:
    for user, sequence in corpus.sequences.items():
        if len(sequence) > 1:
            cut = int(rng.integers(1, len(sequence)))
            past, target = sequence[:cut], sequence[cut]
            code = corpus.items.early.get(user, ()) if cut >= early_length(len(sequence)) else ()
            known = [corpus.texts[item].title for item in past[-TITLES_OF_HISTORY:] if item in corpus.texts]
            titles = {"titles": "; ".join(known)} if known else {}
            codes = {"user": code, "history": corpus.codes(past), "item": corpus.items.of(target)}
            yield {**codes, **titles, **corpus.text(target)}


def _items(corpus: Corpus, rng: Rng) -> Iterator[Bindings]:
    for item in corpus.items.item_ids:
        yield {"item": corpus.items.of(item), **corpus.text(item)}


def _users(corpus: Corpus, rng: Rng) -> Iterator[Bindings]:
    for user, sequence in corpus.sequences.items():
        if corpus.items.of_user(user):
            yield {"user": corpus.items.of_user(user), "history": corpus.codes(sequence), **corpus.profile(user)}


SOURCES: Mapping[str, Callable[[Corpus, Rng], Iterator[Bindings]]] = {
    "sequential": _whole_sequences,
    "next_item": _next_items,
    "item_to_text": _items,
    "text_to_item": _items,
    "asymmetric_to_text": _next_items,
    "asymmetric_to_item": _next_items,
    "intent": _next_items,
    "preference": _users,
    "user_text_to_code": _users,
    "user_code_to_text": _users,
}

TEXT_TASKS = frozenset({"item_to_text", "text_to_item", "asymmetric_to_text", "asymmetric_to_item", "intent"})
PROFILE_TASKS = frozenset({"preference", "user_text_to_code", "user_code_to_text"})


@cache
def task_templates() -> Mapping[str, tuple[Template, ...]]:
    """The ways to put each task, by its name."""
    return load_templates(Path(__file__).with_name("templates.yaml"), CODE_SLOTS | TEXT_SLOTS)


@dataclass(frozen=True)
class Mixture:
    """`weights`: how often an epoch goes over each task's rows; 0.5 is half of them, drawn anew each epoch.

    Answers in text are long: at equal weights most of the learnt tokens would be theirs, and the loss is a mean over
    tokens. At most `text_share` of an epoch's learnt tokens are of such answers, 1: as many as are drawn.
    """

    weights: Mapping[str, float]
    writer: Writer
    text_share: float = 1.0

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(SOURCES)
        if unknown or "sequential" not in self.weights:
            raise DataError(
                f"the mixture has unknown tasks ({', '.join(sorted(unknown)) or 'none'}) or lacks `sequential`",
                do=f"choose from {', '.join(SOURCES)}",
            )

    def epoch(self, corpus: Corpus, seed: tuple[int, int]) -> Samples:
        """The samples of one epoch, the same for the same seed. A row that a template cannot put is left to others."""
        tasks = enumerate(sorted(self.weights.items()))
        drawn = Samples.joined([self._task(task, weight, corpus, (*seed, number)) for number, (task, weight) in tasks])
        return self._balanced(drawn, np.random.default_rng((*seed, len(self.weights))))

    def _balanced(self, samples: Samples, rng: Rng) -> Samples:
        """The samples without so many of the answers in text, chosen at random, that the rest have their share."""
        if self.text_share >= 1.0:
            return samples
        _, starts, ends = samples.ends.T
        learnt, end = ends - starts, self.writer.vocabulary.tokenizer.eos_token_id  # of answers in text only
        texts = rng.permutation(np.flatnonzero(samples.tokens[ends - 1] == end))
        told, after = learnt[texts].sum(), learnt[texts][::-1].cumsum()[::-1]  # `after`: with each text itself
        room = (learnt.sum() - told) * self.text_share / (1.0 - self.text_share)
        return samples[np.delete(np.arange(len(samples)), texts[after > room])]

    def counts(self, corpus: Corpus) -> dict[str, int]:
        """How many rows each task has; a task without any is in no epoch."""
        return {task: sum(1 for _ in self._rows(task, corpus, np.random.default_rng(0))) for task in self.weights}

    def _rows(self, task: str, corpus: Corpus, rng: Rng) -> Iterator[tuple[Bindings, list[Template]]]:
        """The rows that some template of the task can put, with these templates."""
        templates = task_templates()[task]
        for row in SOURCES[task](corpus, rng):
            if fitting := [one for one in templates if one.slots <= row.keys()]:
                yield row, fitting

    def _task(self, task: str, weight: float, corpus: Corpus, seed: tuple[int, ...]) -> Samples:
        """A row is as large as a sample, so they are made twice, one by one: to draw from, and to write those drawn."""
        rng = np.random.default_rng(seed)
        choices = array("B", (len(fitting) for _, fitting in self._rows(task, corpus, rng)))
        whole, rest = divmod(round(weight * len(choices)), max(1, len(choices)))
        chosen = np.concatenate([np.tile(np.arange(len(choices)), whole), rng.permutation(len(choices))[:rest]])
        drawn = np.array([rng.integers(choices[row]) for row in chosen.tolist()], dtype=np.int64)
        by_row, times = np.argsort(chosen, kind="stable"), np.bincount(chosen, minlength=len(choices))
        templates, rows = iter(drawn[by_row].tolist()), self._rows(task, corpus, np.random.default_rng(seed))
        written = (
            self.writer.sample(fitting[next(templates)], row)
            for (row, fitting), count in zip(rows, times.tolist(), strict=True)
            for _ in range(count)
        )
        return Samples.of(written)[np.argsort(by_row)]
