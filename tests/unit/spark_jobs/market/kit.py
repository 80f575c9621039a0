"""A small market: a catalogue of a few brands and categories, and the people who visit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from infra.profile import CHECKOUT
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws
from spark_jobs.market.log import logged
from spark_jobs.market.parameters import ChatParameters, Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.visits import Horizon, World

START, DAYS, DAY = 1_767_225_600_000_000, 30, 86_400_000_000  # 2026-01-01
REAL = CHECKOUT / "spark_jobs" / "sample_data" / "landing" / "intents" / "bitext.parquet"


def items(count: int = 120, **columns: Any) -> pd.DataFrame:
    """So many items of 8 brands and 6 categories, whose titles tell of both; `columns` replace."""
    numbers = np.arange(count)
    words = [f"{['pen', 'ink', 'desk', 'lamp', 'clip', 'tape'][n % 6]} model{n % 17} size{n % 5}" for n in numbers]
    known: dict[str, Any] = {
        "item_id": [f"i{n:03d}" for n in numbers],
        "title": words,
        "brand": [f"maker{n % 8}" for n in numbers],
        "category": [f"Office > {word.split()[0]}" for word in words],
        "price": 2.0 + numbers % 23,
    }
    return pd.DataFrame({**known, **columns})


def parameters(**changes: Any) -> Parameters:
    """The shipped ones but for `changes`, named as `choices__click`."""
    found = Parameters.read()
    for name, value in changes.items():
        section, key = name.split("__")
        found = replace(found, **{section: replace(getattr(found, section), **{key: value})})
    return found


def world(frame: pd.DataFrame | None = None, seed: int = 7, asked: Sequence[str] = (), **changes: Any) -> World:
    """A market of that catalogue, of which people `asked` so."""
    own = parameters(**changes)
    shop = Shop.of(items() if frame is None else frame, own, seed, asked)
    return World(shop, own, Draws(seed), Horizon(START, DAYS))


def tables(market: World, people: int = 300) -> dict[str, pd.DataFrame]:
    """All that is logged of the first people."""
    log = logged(market, np.arange(people))
    return {table: pa.Table.from_batches(rows).to_pandas() for table, rows in log.batches.items()}


def utterances() -> pd.DataFrame:
    """Real wordings of intents."""
    return pd.read_parquet(REAL)[["intent", "text"]]


def with_desk(own: ChatParameters | None = None, texts: pd.DataFrame | None = None, seed: int = 7) -> World:
    """A market with a help desk."""
    market = world(seed=seed)
    own = market.parameters.chats if own is None else own
    desk = Desk.of(utterances() if texts is None else texts, own)
    return replace(market, parameters=replace(market.parameters, chats=own), desk=desk)


def lived(market: World, people: int = 300) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exposures and events of the first people."""
    found = tables(market, people)
    return found["exposures"], found["events"]
