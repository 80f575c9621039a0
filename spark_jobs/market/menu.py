"""Intents that a help desk shows before anything is typed (zero-query): who clicks which, and whom that drives away.

The person knows what they mean, the shop does not. The list is read from the top, with the patience of `choices`, until
one intent is clicked; who clicks none types. A draw belongs to the chat and to the intent, and not to the place.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from spark_jobs.market import lists
from spark_jobs.market.choices import Mask, chance_of_click, read
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws, Floats
from spark_jobs.market.lists import Ints
from spark_jobs.market.parameters import OpeningParameters
from spark_jobs.market.policies import Oracle, Policy, Request, ordered


@dataclass(frozen=True)
class Shown:
    """To those who open a chat [C]: the `intents` [C, n] (-1: none), the `chances` that a look at each ends in a click,
    what was `looked` at and `clicked`, at most one of each row, and who `left` [C] for good afterwards."""

    intents: Ints
    chances: Floats
    looked: Mask
    clicked: Mask
    left: Mask

    @property
    def satisfied(self) -> Floats:
        """The chance [C] to click on the best that was looked at; 0 where there was nothing to look at."""
        return np.asarray(np.max(np.where(self.looked, self.chances, 0.0), axis=1, initial=0.0))


@dataclass(frozen=True)
class Menu:
    """`intents` [K] that may be shown, by name, rising, with the `keys` that draws belong to; `right` [I]: of each of
    the desk's intents its number here; `near` [I, K]: how alike their texts are, 0 to 1 (cosine of TF-IDF)."""

    intents: Sequence[str]
    keys: Ints
    right: Ints
    near: Floats

    @classmethod
    def of(cls, texts: pd.DataFrame, desk: Desk) -> Menu:
        """Of all `intent` and `text` of a help desk, guidelines and wordings, in any order."""
        whole = texts.sort_values(["intent", "text"]).groupby("intent")["text"].agg(" ".join)
        names = whole.index.tolist()
        words = TfidfVectorizer(sublinear_tf=True).fit_transform(whole)
        right = pd.Index(names).get_indexer(list(desk.intents))
        near = np.clip(np.round((words[right] @ words.T).toarray(), 6), 0.0, 1.0)
        keys = np.array([zlib.crc32(name.encode()) for name in names], dtype=np.int64)
        return cls(tuple(names), keys, np.asarray(right, dtype=np.int64), near)

    def shown(
        self, policy: Policy, asked: Request, chat: tuple[Ints, Ints], own: OpeningParameters, draws: Draws
    ) -> Shown:
        """What the policy shows to those who open a chat, and what they do about it. `chat`: request and place [C] of
        what each asks about, which draws are keyed by."""
        request, place = chat[0][:, None], chat[1][:, None]
        candidates = lists.once(policy.candidates(asked))
        scores = np.where(candidates >= 0, policy.scores(asked, candidates), -np.inf)
        noise = draws.gumbel("intents", request, place, self.keys[candidates.clip(0)])
        intents = lists.at(candidates, lists.drawn(scores, noise, own.length).places, -1)
        there, keys, chances = intents >= 0, self.keys[intents.clip(0)], self.chances(asked.wish, intents, own)
        would = there & (draws.uniform("intent click", request, place, keys) < chances)
        at = np.arange(intents.shape[1])[None, :]
        enough = draws.uniform("intent patience", request, place, at) >= asked.people.patience[:, None]
        looked = read(there, would | enough)
        clicked, theirs = looked & would, intents == self.right[asked.wish][:, None]
        in_vain = np.where((clicked & theirs).any(axis=1), 0, (looked & ~theirs).sum(axis=1))
        left = draws.uniform("intent leave", *chat) < chance_of_click(own.leave + own.annoyed * in_vain, 0.0)
        return Shown(intents, chances, looked, clicked, left)

    def chances(self, meant: Ints, intents: Ints, own: OpeningParameters) -> Floats:
        """That a look at each of `intents` [C, n] (-1: none, 0) ends in a click of those who mean `meant` [C]."""
        near = self.near[meant[:, None], intents.clip(0)]
        chances = np.where(intents == self.right[meant][:, None], 1.0 - own.overlooked, own.mistaken * near)
        return np.where(intents >= 0, chances, 0.0)


@dataclass(frozen=True)
class IntentOracle:
    """First what is truly meant, and then what is nearest to it."""

    menu: Menu
    version: ClassVar[str] = Oracle.version

    def candidates(self, request: Request) -> Ints:
        """See `Policy`."""
        first = np.arange(len(self.menu.intents)) == self.menu.right[request.wish][:, None]
        return np.argsort(-(self.menu.near[request.wish] + first), axis=1, kind="stable")

    def scores(self, request: Request, candidates: Ints) -> Floats:
        """See `Policy`."""
        return np.broadcast_to(ordered(np.arange(candidates.shape[1])), candidates.shape)
