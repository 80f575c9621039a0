"""How many codes a shop is given: enough for every row, few enough to be filled, never more than the config says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.core.errors import LeftOut
from training.generative_rec.code_sizes import LEAST, fitted, refuse_small

ROWS = st.integers(1, 10**8)
LEVELS, CODES = st.integers(1, 6), st.integers(1, 4096)


@given(ROWS, LEVELS, CODES)
def test_there_are_never_more_codes_than_asked_for_or_than_rows(rows: int, levels: int, codes: int) -> None:
    found_levels, found = fitted(levels, codes, rows)
    assert 1 <= found_levels <= levels
    assert 1 <= found <= min(codes, rows)


@given(ROWS)
def test_two_levels_have_a_place_for_each_row_unless_the_config_says_fewer_codes(rows: int) -> None:
    levels, codes = fitted(3, 256, rows)
    assert codes**levels >= rows or codes == 256


@given(ROWS, st.integers(0, 1000), LEVELS, CODES)
def test_a_larger_shop_never_has_fewer(rows: int, more: int, levels: int, codes: int) -> None:
    small, large = fitted(levels, codes, rows), fitted(levels, codes, rows + more)
    assert small[0] <= large[0] and small[1] <= large[1]


@given(ROWS, LEVELS, CODES)
def test_what_was_fitted_fits(rows: int, levels: int, codes: int) -> None:
    once = fitted(levels, codes, rows)
    assert fitted(*once, rows) == once


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, (1, 1)),
        (2, (1, 2)),
        (4, (2, 2)),
        (20, (3, 5)),
        (60, (3, 8)),
        (220, (3, 27)),
        (2047, (3, 255)),
        (3459, (3, 256)),
    ],
)
def test_sizes_worked_by_hand(rows: int, expected: tuple[int, int]) -> None:
    """60: the root is 7.7, a code for 8 rows would be 7. 220: 220 / 8 = 27.5, the root is 14.8."""
    assert fitted(3, 256, rows) == expected


def test_a_shop_that_is_too_small_is_told_what_it_needs() -> None:
    refuse_small(LEAST, LEAST)
    with pytest.raises(LeftOut) as refusal:
        refuse_small(1, 40)
    assert refusal.value.reason == "the shop is too small for a model: 1 of at least 20 items in the catalogue"
    with pytest.raises(LeftOut, match="19 of at least 20 items in the catalogue and 5 of at least 20 users"):
        refuse_small(19, 5)
