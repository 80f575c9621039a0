"""How a person is put to the language model: who they are, and what they did, a line of time (AIGQ, section 2.2).

What comes from a small set (the number of a behaviour, how many days ago, what was done) is one special token each,
which starts as the mean of the rows of the words that it stands for; the instruction is one line, as what the fields
mean is learnt. An item is a short phrase (`item_phrases`), not an id. `spelt` is the same without any of that, in
words: what the compression is measured against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from training.core.prompts import Codes, Template, Writer
from training.core.tokens import Vocabulary

SEARCH = "search"
"""The action whose content is words that were searched for; that of all others is an item."""
ACTIONS = {
    SEARCH: "searched for",
    "view": "looked at",
    "click": "clicked on",
    "cart": "put into the cart",
    "purchase": "bought",
    "review": "rated",
}
"""What a person does, by the names of `query_samples`, in words."""
_DAYS = (0, 1, 2, 3, 5, 7, 14, 30, 60)  # a token says at least so many days ago
_WHO = Template.parse("Who: {profile}\n", "").prompt
_EVENT = Template.parse("{content}", "").prompt
_ASKED = "Next queries:"
_SPELT = (
    "You are given what a person did in a shop, oldest first, each line with its number, how many days ago it was, "
    "what was done, and the words that were searched for or the item. Write the queries that the person will search "
    "for next, the likeliest first, with a line for each.\n"
)


@dataclass(frozen=True)
class Behaviours:
    """What a person did before a moment, oldest first: lists of one length, as `query_samples` has them; an item is
    told by its phrase. `profile`: who they are, in words."""

    days_ago: Sequence[int]
    actions: Sequence[str]
    contents: Sequence[str]
    profile: str | None = None


def special_tokens(behaviours: int) -> dict[str, str]:
    """The tokens of the small fields with what each means, for prompts of so many behaviours at most."""
    numbers = {number_token(place): f"{place}" for place in range(1, behaviours + 1)}
    days = {_days(least): "today" if least == 0 else f"{least} days ago" for least in _DAYS}
    return {**numbers, **days, **{_action(name): words for name, words in ACTIONS.items()}}


@dataclass(frozen=True)
class UserPrompts:
    """Prompts of the last `behaviours`. Each content is cut to `text_tokens`, a profile to `profile_tokens`; fenced."""

    vocabulary: Vocabulary
    behaviours: int = 50
    text_tokens: int = 12
    profile_tokens: int = 32

    def of(self, person: Behaviours) -> Codes:
        """The prompt: index, days, action and content of each behaviour, and what is asked."""
        tokens = [self.vocabulary.tokenizer.bos_token_id, *self._who(person)]
        for place, (days, action, content) in enumerate(self._last(person), start=1):
            fields = (number_token(place), _days(max(own for own in _DAYS if own <= days)), _action(action))
            tokens += map(self.vocabulary.token, fields)
            tokens += self._writer.part(_EVENT, {"content": content})
        return (*tokens, *self._writer.part((_ASKED,), {}))

    def spelt(self, person: Behaviours) -> Codes:
        """The same in words, with the whole instruction."""
        tokens = [self.vocabulary.tokenizer.bos_token_id, *self._writer.part((_SPELT,), {}), *self._who(person)]
        for place, (days, action, content) in enumerate(self._last(person), start=1):
            tokens += self._writer.part((f"{place}. {days} days ago, {ACTIONS[action]}: ",), {})
            tokens += self._writer.part(_EVENT, {"content": content})
            tokens += self._writer.part(("\n",), {})
        return (*tokens, *self._writer.part((_ASKED,), {}))

    def _who(self, person: Behaviours) -> Codes:
        if not person.profile:
            return ()
        return Writer(self.vocabulary, self.profile_tokens).part(_WHO, {"profile": person.profile})

    def _last(self, person: Behaviours) -> list[tuple[int, str, str]]:
        rows = list(zip(person.days_ago, person.actions, person.contents, strict=True))
        return rows[-self.behaviours :]

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self.vocabulary, self.text_tokens)


def length_figures(prompts: UserPrompts, people: Sequence[Behaviours]) -> Mapping[str, float]:
    """Mean numbers of tokens of the prompts of these people, `spelt` and `compressed`; NaN of nobody."""
    sizes = [(len(prompts.spelt(person)), len(prompts.of(person))) for person in people]
    count = len(sizes) or float("nan")
    return {"spelt": sum(own for own, _ in sizes) / count, "compressed": sum(own for _, own in sizes) / count}


def number_token(place: int) -> str:
    """The token of the so many-th behaviour of a prompt, from 1."""
    return f"<n_{place}>"


def _days(least: int) -> str:
    return f"<d_{least}>"


def _action(name: str) -> str:
    return f"<did_{name}>"
