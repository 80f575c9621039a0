"""The hints of a person: the lists of their last few signals, the newest first, each query where it stands first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from training.query_rec.hints import Hint, same_query
from training.query_rec.prompts import SEARCH


def searched_for(trigger: tuple[str, str]) -> str:
    """The query of what calls for a list, an action and its content; empty for what is no search."""
    action, content = trigger
    return content if action == SEARCH else ""


@dataclass(frozen=True)
class UserLists:
    """`hints`, each with the number of its list, 0 for the newest; `triggers`: the action and the content that called
    for each list."""

    hints: tuple[tuple[int, Hint], ...] = ()
    triggers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """As a row of `user_hints` has them."""
        hints = map(Hint, row["queries"], row["sources"])
        triggers = zip(row["trigger_actions"], row["trigger_contents"], strict=True)
        return cls(tuple(zip(row["lists"], hints, strict=True)), tuple(triggers))

    def behind(
        self, trigger: tuple[str, str], hints: Sequence[Hint], last: int, refused: Callable[[str, str], str]
    ) -> Self:
        """With a new list before them, `last` lists in all; of the older ones what may still be shown (`refused` says
        why not: the catalogue is of another day), and is not what the new `trigger` searches for: who has it before
        them needs no hint of it."""
        found, asked = dict[str, tuple[int, Hint]](), searched_for(trigger)
        older = (
            (number + 1, hint)
            for number, hint in self.hints
            if not refused(hint.query, hint.source) and not same_query(hint.query, asked)
        )
        for number, hint in (*((0, hint) for hint in hints), *older):
            if number < last:
                found.setdefault(hint.query.lower(), (number, hint))
        return type(self)(tuple(found.values()), (trigger, *self.triggers)[:last])

    def row(self) -> dict[str, Any]:
        """The columns of `user_hints` that tell of them."""
        actions, contents = ([part[n] for part in self.triggers] for n in (0, 1))
        return {
            "queries": [hint.query for _, hint in self.hints],
            "sources": [hint.source for _, hint in self.hints],
            "lists": [number for number, _ in self.hints],
            "trigger_actions": actions,
            "trigger_contents": contents,
        }
