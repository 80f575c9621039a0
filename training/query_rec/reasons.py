"""Why behaviours lead to queries, in words: what a language model learns to write before its plan (AIGQ, section 2.5).

The paper has a teacher model explain each interest. Here a rule does: what the behaviours of an interest have in common
with its queries, how often that came up, and what was done last. It says nothing that the prompt does not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from training.query_rec.catalogue_words import words_of
from training.query_rec.interest_lists import Interest
from training.query_rec.prompts import ACTIONS, Behaviours

_WORDS = 3


class Teacher(Protocol):
    """Who explains interests."""

    def reasons(self, person: Behaviours, interests: Sequence[Interest]) -> str:
        """One text for all interests of a person, in their order."""


class RuleTeacher:
    """`pens 3 times, last searched for today; desk lamp once, last bought 3 days ago`."""

    def reasons(self, person: Behaviours, interests: Sequence[Interest]) -> str:
        """See `Teacher`."""
        return "; ".join(_explained(person, interest) for interest in interests)


def _explained(person: Behaviours, interest: Interest) -> str:
    places = [trigger - 1 for trigger in interest.triggers]
    last = places[-1]
    days = person.days_ago[last]
    when = "today" if days == 0 else "yesterday" if days == 1 else f"{days} days ago"
    times = "once" if len(places) == 1 else f"{len(places)} times"
    contents = [person.contents[place] for place in places]
    return f"{_theme(contents, interest.queries)} {times}, last {ACTIONS[person.actions[last]]} {when}"


def _theme(contents: Sequence[str], queries: Sequence[str]) -> str:
    """The words of the contents that the queries have too, the commonest first; without any, how the last begins."""
    asked = {word for query in queries for word in words_of(query)}
    counts = Counter(word for content in contents for word in dict.fromkeys(words_of(content)) if word in asked)
    common = sorted(counts, key=lambda word: -counts[word])[:_WORDS]
    return " ".join(common or contents[-1].lower().split()[:_WORDS])
