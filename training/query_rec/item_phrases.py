"""A short phrase for an item, which stands for it in prompts: what it is, without what sellers add to a title.

The paper has a language model write it from title, category and attributes; here it is cut from the title by rule: up
to the first mark that sets off a list of properties, without brackets, at most some words (INFERRED).
"""

from __future__ import annotations

import re

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_ENDS = re.compile(r"\s+[-|/\u2013\u2014]\s+|[,;:|](?=\s|$)")


def item_phrase(title: str, brand: str | None = None, words: int = 8) -> str:
    """The phrase of a title: at most so many `words`, the brand in front left out; empty for an empty title alone."""
    plain = " ".join(title.split())
    bare = " ".join(_BRACKETS.sub(" ", plain).split()) or plain
    if brand and bare.lower().startswith(f"{brand.lower()} "):
        bare = bare[len(brand) :].strip()
    first = next((part for part in _ENDS.split(bare) if len(part.split()) > 1), bare)
    return " ".join(first.split()[:words])
