"""Which queries are the same, and that saying so twice says nothing new."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.query_text import LONGEST, normalised


@pytest.mark.parametrize(
    ("query", "known"),
    [
        ("  Red   PEN\t", "red pen"),
        ("Ｌａｍｐ\u3000ﬁne", "lamp fine"),
        ("Cafe\u0301", "caf\u00e9"),
        ("قلم  أحمر", "قلم أحمر"),
        ("🎁 Gift", "🎁 gift"),
        ("x" * 10_000, "x" * LONGEST),
        ("a" * (LONGEST - 1) + " b", "a" * (LONGEST - 1)),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_by_hand(query: str, known: str) -> None:
    assert normalised(query) == known


@given(query=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_once_is_enough_and_the_form_of_letters_and_spaces_does_not_matter(query: str) -> None:
    known = normalised(query)
    assert normalised(known) == known == normalised(f"\u2003{unicodedata.normalize('NFD', query)} \n")
    assert len(known) <= LONGEST and "  " not in known and known == known.strip() == known.lower()
