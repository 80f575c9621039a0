"""What of a landed value is no text: the blanks around it, and the words that exports write where a value is absent."""

from __future__ import annotations

# Exports leave no-break spaces, byte order marks, zero-width spaces and NULs around values; people see none of them.
BLANKS = (
    " \t\n\v\f\r\0\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
ABSENT = (
    *("null", "NULL", "Null", "(null)", "nan", "NaN", "NAN", "None", "none", "NONE", "nil", "NaT", "undefined"),
    *("NA", "N/A", "n/a", "#N/A", "<NA>", "\\N", "(not set)"),
)


def stripped(text: str | None) -> str:
    """The text without the blanks around it; nothing is the empty text."""
    return "" if text is None else text.strip(BLANKS)
