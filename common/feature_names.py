"""Full names of what the feature store says: `<view>__<feature>`, and a view's name begins with what it is keyed by.

So whoever reads a table can tell a feature of its user from one of its item, without the store's definitions.
"""

from __future__ import annotations

USER = "user"


def entity_of(name: str) -> str:
    """What a feature is of: `user` for `user_daily__events_30d`; empty where the name is none of a feature."""
    view, mark, feature = name.partition("__")
    return view.partition("_")[0] if mark and feature else ""
