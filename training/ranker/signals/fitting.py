"""All signals of a shop: what can be chosen is chosen by NDCG@10 on its own validation part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

import scipy.sparse as sp

from training.core.errors import LeftOut
from training.next_item.recommender import Choice
from training.ranker.signals.base import Floats, Learnt, Signal
from training.ranker.signals.covisit import CoVisit, Direction
from training.ranker.signals.personal import Personal
from training.ranker.signals.popularity import Popularity
from training.ranker.signals.sasrec import SASRec
from training.ranker.signals.self_attention import SASRecConfig
from training.ranker.signals.text import TextSimilarity
from training.ranker.signals.validation import Validation

Vectors = Mapping[str, sp.csr_array | Floats]
Words = Literal["tf_idf", "encoder"]
ALONE = ("both",)  # rows of every table, and nothing to mix: forward and backward say it, each for itself
T = TypeVar("T")


@dataclass(frozen=True)
class SignalsConfig:
    """What there is to choose from: `windows` of popularity in days (0: all of them), `half_lives` of what a user took,
    in events (0: for ever), `reaches` of co-visits; `asked`: by so many validation questions at most. `sasrec`: None,
    and only what costs seconds is fitted."""

    windows: tuple[int, ...] = (0, 7, 30, 90)
    half_lives: tuple[int, ...] = (0, 1000, 300, 100, 30)
    reaches: tuple[int, ...] = (3, 1, 5, 10)
    asked: int = 2000
    sasrec: SASRecConfig | None = field(default_factory=SASRecConfig)


@dataclass(frozen=True)
class Chosen:
    """What was chosen for a shop. None: there is no such signal, `left_out` says why."""

    window: int
    reach: Mapping[Direction, int]
    text: str | None
    epochs: int | None
    half_life: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """`signals` by name, what was `chosen`, and how good each choice was on validation."""

    signals: Mapping[str, Signal]
    chosen: Chosen
    choices: Mapping[str, Choice]


def choose(learnt: Learnt, validation: Validation, config: SignalsConfig, vectors: Vectors) -> Fitted:
    """Fit all signals on what is learnt from, each as it ranks `validation` best."""
    some, left_out = validation.first(config.asked), dict[str, str]()
    choices: dict[str, Choice] = {}
    signals: dict[str, Signal] = {}

    def best(name: str, options: Sequence[T], fit: Callable[[T], Signal], words: Callable[[T], str]) -> T:
        found = [(some.ndcg(signal := fit(option)), signal, option) for option in options]
        quality, signals[name], option = max(found, key=lambda one: one[0])  # the first of equals
        choices[name] = Choice(words(option), quality)
        return option

    def reach(way: Direction) -> int:
        return best(way, config.reaches, lambda places: CoVisit.fit(learnt, way, places), "reach {}".format)

    window = best("popularity", config.windows, lambda days: Popularity.fit(learnt, days or None), _words_of_window)
    half_life = best("personal", config.half_lives, lambda events: Personal.fit(learnt, events), _words_of_half_life)
    reaches: dict[Direction, int] = {way: reach(way) for way in get_args(Direction)}
    text = best("text", list(vectors), lambda kind: TextSimilarity.fit(vectors[kind]), str) if vectors else None
    if text is None:
        left_out["text"] = "no item has a text"
    epochs = None
    try:
        if config.sasrec:
            sasrec = SASRec.fit(learnt, config.sasrec, some)
            signals["sasrec"], epochs = sasrec, sasrec.epochs
            choices["sasrec"] = Choice(f"{epochs} epochs", some.ndcg(sasrec))
    except LeftOut as refusal:
        left_out["sasrec"] = refusal.reason
    return Fitted(signals, Chosen(window, reaches, text, epochs, half_life, left_out), choices)


def fit_as_chosen(learnt: Learnt, chosen: Chosen, config: SignalsConfig, vectors: Vectors) -> dict[str, Signal]:
    """The same signals of other data: the same choices, and as many epochs."""
    signals: dict[str, Signal] = {
        "popularity": Popularity.fit(learnt, chosen.window or None),
        "personal": Personal.fit(learnt, chosen.half_life),
        **{way: CoVisit.fit(learnt, way, reach) for way, reach in chosen.reach.items()},
    }
    if chosen.text is not None:
        signals["text"] = TextSimilarity.fit(vectors[chosen.text])
    if config.sasrec and chosen.epochs is not None:
        signals["sasrec"] = SASRec.fit(learnt, replace(config.sasrec, epochs=chosen.epochs), None)
    return signals


def _words_of_window(days: int) -> str:
    return f"the last {days} days" if days else "all days"


def _words_of_half_life(events: int) -> str:
    return f"half-life of {events} events" if events else "all events alike"
