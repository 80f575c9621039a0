"""The shop's help desk: what customers may ask, in the real wordings of the lake's `intents`, and why they would.

Why is data: parameters.yaml maps each cause to the moment of an order or a visit in which it comes, to its chance and
to intents by name. An intent that the table does not word is never asked, and `told` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.sentences import some_of
from spark_jobs.market.draws import Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import ChatParameters


@dataclass(frozen=True)
class Desk:
    """`intents` by name; `wordings`, one intent's after the other's, those of each beginning at `worded` [I + 1];
    `asked`: numbers of intents, one cause's after the other's, those of each beginning at `caused` [C + 1]; `unknown`:
    names that the table does not word."""

    intents: Sequence[str]
    wordings: Sequence[str]
    worded: Ints
    asked: Ints
    caused: Ints
    unknown: Sequence[str]

    @classmethod
    def of(cls, utterances: pd.DataFrame, own: ChatParameters) -> Desk:
        """Of `intent` and `text`, in any order."""
        named = sorted({name for cause in own.causes.values() for name in cause.intents})
        wordings = {name: sorted(set(texts)) for name, texts in utterances.groupby("intent")["text"]}
        intents = [name for name in named if name in wordings]
        number = {name: place for place, name in enumerate(intents)}
        asked = [[number[name] for name in cause.intents if name in number] for cause in own.causes.values()]
        return cls(
            tuple(intents),
            tuple(text for name in intents for text in wordings[name]),
            np.cumsum([0, *(len(wordings[name]) for name in intents)]),
            np.array([intent for one in asked for intent in one], dtype=np.int64),
            np.cumsum([0, *map(len, asked)]),
            tuple(name for name in named if name not in number),
        )

    def meant(self, cause: Ints, drawn: Floats) -> Ints:
        """An intent of each cause [N], by draws of (0, 1); -1 where it has none that is known."""
        many = self.caused[cause + 1] - self.caused[cause]
        place = self.caused[cause] + (drawn * many).astype(np.int64)
        return np.where(many > 0, np.append(self.asked, -1)[place], -1)

    def wording(self, intent: Ints, drawn: Floats) -> Ints:
        """A wording of each [N]."""
        many = self.worded[intent + 1] - self.worded[intent]
        return self.worded[intent] + (drawn * many).astype(np.int64)

    def another(self, intent: Ints, drawn: Floats) -> Ints:
        """Any but that one, [N]; the same where there is no other."""
        others = len(self.intents) - 1
        return (intent + (others > 0) + (drawn * others).astype(np.int64)) % len(self.intents)

    def told(self) -> str:
        """A sentence for people."""
        if not self.intents:
            return "no chats: no text of `intents` words an intent that parameters.yaml names"
        if self.unknown:
            return f"nobody asks for {some_of(self.unknown)}: parameters.yaml names it, no text of `intents` words it"
        return f"chats in the words of {len(self.wordings):,} texts of `intents`"
