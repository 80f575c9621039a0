"""The evidence of one case in words: tersely for a language model that has a legend, in full for people and teachers.

Neither holds any text of users or suppliers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from training.semantic_judge.examples import Floats

Near = Callable[[float], str]
"""How near a cosine is, in a word."""
LEGEND = (
    "how near its text is to what was liked, disliked and taken last; how much of the history is of its brand and "
    "category, with the stars given; its price; how many others took it in a year, with their stars; how often the "
    "shopper took it, and how many events ago"
)
"""What `terse` tells, in its order."""
_DEAR = np.log(1.5)


def terse(of: Mapping[str, float], near: Near, asked: Near) -> str:
    """What `LEGEND` says, and nothing that is of the user alone: a prompt says that once (`history_words`)."""
    said = [f"liked {near(of['near.liked'])}"]
    if not np.isnan(of["near.disliked"]):
        said.append(f"disliked {near(of['near.disliked'])}")
    said.append(f"last {near(of['near.last'])}")
    for name in ("brand", "category"):
        share = of[f"{name}.share"]
        much = "" if np.isnan(share) else "new" if share == 0 else "few" if share < 0.1 else _more(share)
        said += [f"{name} {much}{_brief(of[f'{name}.rating'])}"] if much else []
    said += _price(of["price.beside"], ("dearer", "cheaper", "usual price"))
    others, ago = of["item.events"], of["taken.ago"]
    known = not np.isnan(others) and others > 0
    said.append(f"others {others:.0f}{_brief(of['item.rating'])}" if known else "others none")
    said.append("never taken" if np.isnan(ago) else f"taken {of['taken.times']:.0f}, {ago:.0f} ago")
    if not np.isnan(of["context.near"]):
        said.append(f"sought {asked(of['context.near'])}")
    return "; ".join(said)


def in_full(of: Mapping[str, float], near: Near, asked: Near) -> str:
    """The same for who has no legend, and how long the history is."""
    said = [f"to liked items {near(of['near.liked'])}"]
    if not np.isnan(of["near.disliked"]):
        said.append(f"to disliked items {near(of['near.disliked'])}")
    said.append(f"to the last item {near(of['near.last'])}")
    for name in ("brand", "category"):
        share = of[f"{name}.share"]
        if not np.isnan(share):
            seen = f"{name} in {share:.0%} of the history{_stars(of[f'{name}.rating'])}"
            said.append(seen if share else f"{name} new")
    said += _price(of["price.beside"], ("dearer than usual", "cheaper than usual", "price about as usual"))
    others, ago = of["item.events"], of["taken.ago"]
    known = not np.isnan(others) and others > 0
    taken = f"taken by others {others:.0f} times{_stars(of['item.rating'])}"
    said.append(taken if known else "nobody took it in the last year")
    said.append("never taken before" if np.isnan(ago) else f"taken {of['taken.times']:.0f} times, {ago:.0f} events ago")
    said.append(f"history of {of['history.length']:.0f}{_stars(of['history.rating'])}")
    if not np.isnan(of["context.near"]):
        said.append(f"to what is looked for {asked(of['context.near'])}")
    return "; ".join(said)


def history_words(ratings: Floats) -> str:
    """What there is to count of a user alone: how long the history is, and the mean of its stars (NaN: not rated)."""
    given = ratings[~np.isnan(ratings)]
    return f"{len(ratings)} taken" + (_stars(float(given.mean())) if len(given) else "")


def _more(share: float) -> str:
    return "some" if share < 0.5 else "most"


def _price(beside: float, words: tuple[str, str, str]) -> list[str]:
    if np.isnan(beside):
        return []
    return [words[0] if beside > _DEAR else words[1] if beside < -_DEAR else words[2]]


def _brief(rating: float) -> str:
    return "" if np.isnan(rating) else f" {rating:.1f}"


def _stars(rating: float) -> str:
    return "" if np.isnan(rating) else f", rated {rating:.1f} of 5"
