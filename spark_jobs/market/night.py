"""The market of a night: its lists are played in it, and by its log the card is held. One shop for both.

A shop's item neighbours are what it costs, so a process that is asked for the same shop again has it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import pandas as pd

from spark_jobs.market.draws import Draws
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.visits import Horizon, World


def world_of(items: pd.DataFrame, parameters: Parameters, seed: int, days: int) -> World:
    """A market of so many days on a catalogue (`known.COLUMNS`), whose rows may stand in any order.

    Raises:
        DataError: the catalogue has fewer than two items.
    """
    ordered = items.sort_values("item_id", ignore_index=True)
    digest = hashlib.sha256(pd.util.hash_pandas_object(ordered, index=False).to_numpy().tobytes()).hexdigest()
    shop = _shop(_Asked(digest, parameters.hash, seed, ordered, parameters))
    return World(shop, parameters, Draws(seed), Horizon(0, days))


@dataclass(frozen=True)
class _Asked:
    """Of which shop: told apart by hashes."""

    catalogue: str
    assumed: str
    seed: int
    items: pd.DataFrame = field(compare=False)
    parameters: Parameters = field(compare=False)


@lru_cache(maxsize=1)
def _shop(asked: _Asked) -> Shop:
    return Shop.of(asked.items, asked.parameters, asked.seed)
