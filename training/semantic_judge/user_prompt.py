"""A user state in words: all that the aggregator is shown. It takes user states and no case, so no item to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.core.prompts import Template, Writer
from training.core.sequences import Tokens
from training.semantic_judge.aspects import Aspect
from training.semantic_judge.evidence import DISLIKED, LIKED
from training.semantic_judge.examples import Catalogue, States

_PROMPT = (
    "Customer: {profile}\nLiked, newest first: {liked}\nTook: {taken}\nDisliked: {disliked}\nLooks for: {context}\n"
    "How much counts, from 0 to 4: "
)


def wording(aspects: Sequence[Aspect]) -> str:
    """What stands in every prompt, with its slots."""
    return f"{_PROMPT}{', '.join(aspect.name for aspect in aspects)}:"


@dataclass(frozen=True)
class UserPrompts:
    """Prompts that end where the importance levels of the `aspects` begin; texts are fenced and cut by the `writer`."""

    writer: Writer
    aspects: tuple[Aspect, ...]

    def of(self, states: States, catalogue: Catalogue) -> list[Tokens]:
        """The prompt of each state: profile, titles of the history by how they were rated, what is looked for.

        The catalogue says what the items of histories are called; nothing else of it is read.
        """
        return [self._of(number, states, catalogue) for number in range(len(states))]

    def _of(self, number: int, states: States, catalogue: Catalogue) -> Tokens:
        own = slice(int(states.starts[number]), int(states.starts[number + 1]))
        ratings = states.ratings[own][::-1]
        titles = [catalogue.items[item].title or "" for item in states.history[own][::-1].tolist()]
        liked, disliked = ratings >= LIKED, ratings <= DISLIKED
        groups = {"liked": liked, "disliked": disliked, "taken": ~(liked | disliked)}
        said = {name: _listed(titles, group) for name, group in groups.items()}
        told = {"profile": states.profiles[number] or "", "context": states.contexts[number] or ""}
        return self.writer.prompt(self._template, {**said, **told})

    @cached_property
    def _template(self) -> Template:
        return Template.parse(wording(self.aspects), "")


def _listed(titles: Sequence[str], group: NDArray[np.bool_]) -> str:
    return "; ".join(title for title, there in zip(titles, group.tolist(), strict=True) if there and title)
