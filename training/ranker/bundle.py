"""Signals and the ranker over them in a folder: what a stage hands on, evaluation measures and serving loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from common.config import parse_config
from training.core.files import write_json
from training.core.tables import read_parquet
from training.next_item.recommender import Choice
from training.next_item.samples import Split
from training.ranker.candidates import Depth
from training.ranker.features import Facts, of_the_store
from training.ranker.learner import Ranker
from training.ranker.parts import LearnFrom
from training.ranker.signals.base import Ints, Signal, Stored
from training.ranker.signals.covisit import CoVisit
from training.ranker.signals.fitting import ALONE, Chosen, Fitted
from training.ranker.signals.personal import Personal
from training.ranker.signals.popularity import Popularity
from training.ranker.signals.sasrec import SASRec
from training.ranker.signals.text import TextSimilarity

_KINDS: Mapping[str, type[Stored]] = {
    "popularity": Popularity,
    "personal": Personal,
    "forward": CoVisit,
    "backward": CoVisit,
    "both": CoVisit,
    "text": TextSimilarity,
    "sasrec": SASRec,
}
_ITEMS, _PASTS, _FACTS, _SIGNALS = "items.parquet", "pasts.parquet", "facts.safetensors", "signals"
_SETTINGS = "bundle.json"


@dataclass(frozen=True)
class _Settings:
    """What is no array."""

    chosen: Chosen
    words: Mapping[str, str]
    ndcg: Mapping[str, float]
    depth: Depth
    rank_own: bool
    split: Split
    until: int
    learnt_from: LearnFrom | None = None


@dataclass(frozen=True)
class Bundle:
    """`catalogue`: item ids by number. `pasts`: what is known of users from before their histories. `rank_own`: may a
    user's own items be recommended. `split`: the one whose parts it learnt from; `until`: the last day of an event that
    it learnt, in days since 1970. `ranker` is None before one has been learnt, from the part `learnt_from`;
    bundles of before 2026-11-28 do not say from which."""

    catalogue: Sequence[str]
    fitted: Fitted
    facts: Facts
    pasts: Mapping[str, Ints]
    depth: Depth
    rank_own: bool
    split: Split
    until: int
    ranker: Ranker | None = None
    learnt_from: LearnFrom | None = None

    @property
    def signals(self) -> Mapping[str, Signal]:
        """By name."""
        return self.fitted.signals

    @property
    def mixed(self) -> Mapping[str, Signal]:
        """Those that the ranker mixes: without rows that only stand beside them."""
        return {name: signal for name, signal in self.signals.items() if name not in ALONE}

    @property
    def store_features(self) -> tuple[str, ...]:
        """What the ranker has learnt with of the feature store, by full name."""
        return of_the_store(self.ranker.names) if self.ranker else ()

    def with_ranker(self, ranker: Ranker, until: int, learnt_from: LearnFrom) -> Bundle:
        """The same signals with a ranker over them, whose own events are of that part and go to the day `until`."""
        return replace(self, ranker=ranker, until=max(self.until, until), learnt_from=learnt_from)

    def save(self, folder: Path) -> None:
        """Write what `load` reads: Parquet, safetensors, text and JSON, no pickle. TypeError for a signal that is not
        `Stored`."""
        (folder / _SIGNALS).mkdir(parents=True)
        pq.write_table(pa.table({"item_id": pa.array(self.catalogue, pa.string())}), folder / _ITEMS)
        pasts = {"user_id": pa.array(self.pasts, pa.string()), "items": pa.array(list(self.pasts.values()), _NUMBERS)}
        pq.write_table(pa.table(pasts), folder / _PASTS)
        save_file({name: np.array(value, order="C") for name, value in vars(self.facts).items()}, folder / _FACTS)
        for name, signal in self.signals.items():
            if not isinstance(signal, Stored):
                raise TypeError(f"{name} is no signal that a folder can hold")
            arrays = {key: np.array(value, order="C") for key, value in signal.arrays().items()}
            save_file(arrays, folder / _SIGNALS / f"{name}.safetensors")
        choices = self.fitted.choices
        words = {name: choice.words for name, choice in choices.items()}
        ndcg = {name: choice.ndcg for name, choice in choices.items()}
        fixed = (self.depth, self.rank_own, self.split, self.until, self.learnt_from)
        settings = _Settings(self.fitted.chosen, words, ndcg, *fixed)
        write_json(folder / _SETTINGS, asdict(settings))
        if self.ranker:
            self.ranker.save(folder)

    @staticmethod
    def there_is_one(folder: Path) -> bool:
        """Whether one was saved there."""
        return (folder / _SETTINGS).is_file()

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read it; DataError for a folder that is not whole."""
        settings = parse_config(_Settings, json.loads((folder / _SETTINGS).read_text()), str(folder / _SETTINGS))
        items = read_parquet("items", [folder / _ITEMS], {"item_id": pa.string()})["item_id"].to_pylist()
        pasts = pq.read_table(folder / _PASTS)
        known = [np.array(line, dtype=np.int64) for line in pasts["items"].to_pylist()]
        paths = {path.stem: path for path in (folder / _SIGNALS).glob("*.safetensors")}
        choices = {name: Choice(words, settings.ndcg[name]) for name, words in settings.words.items()}
        signals = {name: kind.of_arrays(load_file(paths[name])) for name, kind in _KINDS.items() if name in paths}
        return cls(
            items,
            Fitted(signals, settings.chosen, choices),
            Facts(**load_file(folder / _FACTS)),
            dict(zip(pasts["user_id"].to_pylist(), known, strict=True)),
            settings.depth,
            settings.rank_own,
            settings.split,
            settings.until,
            Ranker.load(folder) if Ranker.there_is_one(folder) else None,
            settings.learnt_from,
        )


_NUMBERS = pa.list_(pa.int64())
