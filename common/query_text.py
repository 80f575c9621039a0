"""When two queries are the same: the one form by which tables, features and measures know them."""

from __future__ import annotations

import unicodedata

LONGEST = 120
"""Characters by which a query is known: nobody is shown a longer one."""


def normalised(query: str) -> str:
    """Small letters, compatible characters as one (NFKC), one space for each run of white space and none around, and of
    that the first `LONGEST` characters. Doing it again changes nothing."""
    plain = query if query.isascii() else unicodedata.normalize("NFKC", query)
    small = plain.lower()
    # Small letters may be written in pieces where the capital was one character.
    whole = small if small.isascii() else unicodedata.normalize("NFKC", small)
    return " ".join(whole.split())[:LONGEST].rstrip()
