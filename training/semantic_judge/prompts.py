"""How a case is put to the language model: who the user is, which is read once, then an item, and what is asked of it.

What users and suppliers wrote stands between fences that no text can spell (`core.prompts`), each piece cut to its own
length, so a title can neither pass for an instruction nor push the question out. The evidence holds no such text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.core.errors import DataError
from training.core.prompts import Bindings, Codes, Template, Writer
from training.core.sequences import Tree
from training.core.tokens import Vocabulary
from training.semantic_judge.aspects import Aspect
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.evidence_words import LEGEND, history_words
from training.semantic_judge.examples import Cases, Ints, Item, States


@dataclass(frozen=True)
class PromptConfig:
    """`titles`: whether the texts of items are shown; `evidence`: whether what is counted of user and item is, in
    words. The last `history` items of a user are shown; titles are cut to `title_tokens`, a profile and what is looked
    for to `profile_tokens`. DataError where neither is shown."""

    titles: bool = True
    evidence: bool = True
    history: int = 5
    title_tokens: int = 16
    profile_tokens: int = 32

    def __post_init__(self) -> None:
        if not (self.titles or self.evidence):
            raise DataError("a judge is shown neither titles nor evidence", do="set titles or evidence to true")


_TASK = "Judge an item for a shopper. Levels: {scales}."
_PROFILE = Template.parse("\nWho: {profile}", "").prompt
_CONTEXT = Template.parse("\nLooks for: {context}", "").prompt
_TOOK, _NOTHING = "\nTook, oldest first, with stars of 5:", "\nTook nothing yet."
_EVENT = Template.parse("\n{title}", "").prompt
_ITEM = Template.parse("\nThe item: {title}", "").prompt
_BRAND = Template.parse(" by {brand}", "").prompt
_CATEGORY = Template.parse(" in {category}", "").prompt
_PRICE, _ASKED = " for {price:.2f}", "\nLevels:"
_COUNTED, _EVIDENCE = "\nHistory: {words}.\nKnown of an item: {legend}.", "\nKnown: {words}"
_UNTITLED = "?"
TEXTS = (_TASK, _TOOK, _NOTHING, _COUNTED, LEGEND, _EVIDENCE, _ASKED, *_PROFILE, *_CONTEXT, *_ITEM, *_BRAND, *_CATEGORY)
"""What stands in every prompt: a small vocabulary should know its words."""


@dataclass(frozen=True)
class CasePrompts:
    """Cases as token ids. `evidence`: what gives the words, where they are shown."""

    vocabulary: Vocabulary
    aspects: Sequence[Aspect]
    config: PromptConfig
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.config.evidence and self.evidence is None:
            raise DataError(
                "the judge's prompt shows evidence, and there is none", do="give it what the stage evidence made"
            )

    def trees(self, cases: Cases) -> tuple[list[Tree], Ints]:
        """One tree for each user state, with its items as responses; and the case [n] of each response, tree by tree.

        A prompt is the same tokens whether an item is judged alone or with others.
        """
        order = np.argsort(cases.state, kind="stable")
        if not len(order):
            return [], order
        asked, states = self._asked(cases), cases.state[order]
        runs = np.split(order, np.flatnonzero(np.diff(states)) + 1)
        trees = [
            Tree(self._state(cases.states, int(cases.state[run[0]]), cases), tuple(asked[row] for row in run.tolist()))
            for run in runs
        ]
        return trees, order

    def whole(self, cases: Cases) -> list[Codes]:
        """The whole prompt of each case."""
        trees, order = self.trees(cases)
        written = [tree.prompt + response for tree in trees for response in tree.responses]
        return [written[place] for place in np.argsort(order).tolist()]

    def _state(self, states: States, number: int, cases: Cases) -> Codes:
        own = slice(int(states.starts[number]), int(states.starts[number + 1]))
        items, ratings = states.history[own][-self.config.history :], states.ratings[own][-self.config.history :]
        tokens = [self.vocabulary.tokenizer.bos_token_id, *self._plain(_TASK.format(scales=self._scales))]
        if profile := states.profiles[number]:
            tokens += self._words.part(_PROFILE, {"profile": profile})
        if context := states.contexts[number]:
            tokens += self._words.part(_CONTEXT, {"context": context})
        if self.config.titles:
            tokens += self._plain(_TOOK if len(items) else _NOTHING)
            for item, rating in zip(items.tolist(), ratings.tolist(), strict=True):
                tokens += self._titles.part(_EVENT, _title(cases.catalogue.items[item]))
                tokens += () if np.isnan(rating) else self._plain(f" {rating:.0f}")
        if self.config.evidence:
            tokens += self._plain(_COUNTED.format(words=history_words(states.ratings[own]), legend=LEGEND))
        return tuple(tokens)

    def _asked(self, cases: Cases) -> list[Codes]:
        """What follows the user's part, of each case."""
        items = said = list[Codes]([()] * len(cases))
        if self.config.titles:
            items = [self._item(cases.judged(row)) for row in range(len(cases))]
        if self.config.evidence and self.evidence:
            lines = self.evidence.words(self.evidence.numbers(cases))
            said = [self._plain(_EVIDENCE.format(words=words)) for words in lines]
        return [(*item, *words, *self._plain(_ASKED)) for item, words in zip(items, said, strict=True)]

    def _item(self, item: Item) -> Codes:
        tokens = self._titles.part(_ITEM, _title(item))
        if item.brand:
            tokens += self._titles.part(_BRAND, {"brand": item.brand})
        if item.category:
            tokens += self._titles.part(_CATEGORY, {"category": item.category})
        return tokens if item.price is None else tokens + self._plain(_PRICE.format(price=item.price))

    def _plain(self, text: str) -> Codes:
        return self._titles.part((text,), {})

    @cached_property
    def _scales(self) -> str:
        return ", ".join(f"{aspect.name} 0 to {len(aspect.values) - 1}" for aspect in self.aspects)

    @cached_property
    def _titles(self) -> Writer:
        return Writer(self.vocabulary, self.config.title_tokens)

    @cached_property
    def _words(self) -> Writer:
        return Writer(self.vocabulary, self.config.profile_tokens)


def _title(item: Item) -> Bindings:
    return {"title": item.title or _UNTITLED}
