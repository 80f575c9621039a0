"""Stage: what the language model learns from, made once for all that learn: people in words, and their ordered lists.

Training examples are of requests with a click (Direct) and of days (Think), test examples are days. All that is told of
a person, and all that is counted, is of before their session, and of training days. Reads the log, the catalogue, and
the ranker that orders candidates; lost on a kill: the stage. Safe to run twice.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from training.core.choice import Choice
from training.core.embeddings import embed_texts, kept_vectors
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, read_batches, resolve_config
from training.core.tables import EmptyTable
from training.query_rec.counting import QueryCounts
from training.query_rec.examples import Example, Examples, ListConfig
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.list_maker import (
    DIRECT,
    THINK,
    Generated,
    ListMaker,
    Profiles,
    no_profile,
    nobody_generates,
    searched,
)
from training.query_rec.people import Met, Person, read_met
from training.query_rec.prompts import Behaviours
from training.query_rec.reasons import RuleTeacher
from training.query_rec.shop_words import ShopWords

_AT_ONCE = 4096  # the encoder is loaded once for so many
_PROFILES = {"user_id": pa.string(), "available_at": pa.timestamp("us", tz="UTC"), "profile_text": pa.string()}


@dataclass(frozen=True)
class Config:
    """`requests` and `days`: how many examples of Direct and Think each part of the split has at most, drawn with the
    seed. `candidates` of each counting row are ordered by the ranker, whose `ranked` best are added to a list; 0:
    no ranker is asked, as in a log without hints, where none can be learnt.
    `profiles`: whether prompts say who a person is. `encoder`: a sentence-transformers folder, None: the embedded
    MiniLM; texts are cut to `encoder_tokens`. `generated`: a stage of Direct whose model adds queries; none by default.
    """

    lists: ListConfig = field(default_factory=ListConfig)
    requests: Mapping[str, int] = field(default_factory=lambda: {"train": 20_000, "valid": 1000})
    days: Mapping[str, int] = field(default_factory=lambda: {"train": 20_000, "valid": 1000, "test": 2000})
    candidates: int = 10
    ranked: int = 10
    profiles: bool = False
    encoder: str | None = None
    encoder_tokens: int = 32
    generated: str = ""


def main(spec: StageSpec) -> StageResult:
    """Draw, make the lists, and write them."""
    config = resolve_config(spec, Config)
    ranker = HintRanker.load(spec.artifact("hint_ranker") / "model") if config.ranked else None
    shop = ShopWords.read(spec)
    drawn, searches = _drawn(spec, config)
    maker = ListMaker(
        config.lists,
        shop.phrases,
        QueryCounts.of(searches, shop.things),
        ranker,
        lambda texts: _vectors(spec, config, texts),
        RuleTeacher(),
        config.candidates,
        config.ranked,
        _profiles(spec, drawn) if config.profiles else no_profile,
        _generated(spec, config),
    )
    told = _Told()
    with new_folder(spec.out_dir / "lists") as scratch:
        Examples.write(scratch, config.lists, told.counted(_made(maker, drawn)), searches)
    told.refuse_nothing()
    return StageResult({**told.metrics(), "met": float(len(drawn)), "searches": float(len(searches))})


def _made(maker: ListMaker, drawn: Sequence[Met]) -> Iterator[list[Example]]:
    with Progress(len(drawn), "lists", "meeting") as progress:
        for start in range(0, len(drawn), _AT_ONCE):
            part = drawn[start : start + _AT_ONCE]
            yield maker.examples(part)
            progress.advance(len(part))


def _drawn(spec: StageSpec, config: Config) -> tuple[list[Met], list[tuple[str, str | None]]]:
    """The meetings of each form and part, in an order of the seed so that a larger draw begins with a smaller one, and
    the searches of the training days: what people did before the last of those days that is known of them, and what
    they searched for on it. LeftOut where nobody has searched."""
    heaps: dict[tuple[str, str], list[tuple[int, int, Met]]] = defaultdict(list)
    last: dict[str, Met] = {}
    limits = {DIRECT: config.requests, THINK: config.days}
    try:
        for number, met in enumerate(read_met(spec, (DIRECT, THINK), {"train", "valid", "test"})):
            before = last.get(met.person.user_id)
            if met.part == "train" and (before is None or met.person.as_of >= before.person.as_of):
                last[met.person.user_id] = met
            most = limits[met.form].get(met.part, 0)
            if met.labels and most:
                heap, entry = heaps[met.form, met.part], (-_draw(spec.seed, met), number, met)
                heappush(heap, entry) if len(heap) < most else heappushpop(heap, entry)
    except EmptyTable as error:
        raise LeftOut(
            "nobody has met a search box", where="query_samples", do="wait for the shop's hint log"
        ) from error
    found = [met for key in sorted(heaps) for _, _, met in sorted(heaps[key], key=lambda entry: -entry[0])]
    searches = [
        pair
        for user in sorted(last)
        for pair in (*searched(last[user].person), *((query, None) for query in last[user].labels))
    ]
    return found, searches


def _draw(seed: int, met: Met) -> int:
    key = f"{seed} {met.person.user_id} {met.request_id} {met.form} {met.day}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _vectors(spec: StageSpec, config: Config, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    encoder = Path(config.encoder) if config.encoder else None
    found = embed_texts(texts, kept_vectors(), encoder=encoder, max_tokens=config.encoder_tokens)
    return np.asarray(found, dtype=np.float32)


def _profiles(spec: StageSpec, drawn: Sequence[Met]) -> Profiles:
    """The newest profile that was there when a person met the search box."""
    wanted = {met.person.user_id for met in drawn}
    known: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for table in read_batches(spec, "user_profiles", _PROFILES):
        for row in table.to_pylist():
            if row["user_id"] in wanted and row["profile_text"]:
                known[row["user_id"]].append((row["available_at"], row["profile_text"]))
    for own in known.values():
        own.sort()

    def profile(person: Person) -> str | None:
        own = known.get(person.user_id, [])
        place = bisect_right(own, person.as_of, key=lambda row: row[0])
        return own[place - 1][1] if place else None

    return profile


def _generated(spec: StageSpec, config: Config) -> Generated:
    """The list that the model of another stage writes for each person, greedily."""
    if not config.generated:
        return nobody_generates
    model = HintModel.load(spec.artifact(config.generated) / "model")

    def generated(people: Sequence[Behaviours]) -> Sequence[Sequence[str]]:
        return [model.queries(answer) for (answer,) in model.write(people, Choice(0.0))]

    return generated


class _Told:
    """Figures of the examples as they go by."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)

    def counted(self, batches: Iterator[list[Example]]) -> Iterator[list[Example]]:
        """The same batches."""
        for batch in batches:
            for one in batch:
                self._sums[f"{one.form}.{one.part}"] += 1
                self._sums["examples"] += 1
                self._sums["labels"] += len(one.labels)
                self._sums["observed"] += len(one.observed)
                for source in one.sources:
                    self._sums[f"source.{source}"] += 1
                if one.form == THINK:
                    self._sums["interests"] += len(one.interests)
            yield batch

    def refuse_nothing(self) -> None:
        """LeftOut where nothing can be learnt."""
        if not self._sums["direct.train"] + self._sums["think.train"]:
            raise LeftOut("no meeting with the search box has a list to learn", do="wait for hints that are clicked")

    def metrics(self) -> dict[str, float]:
        """Counts, and means by example."""
        means = {"labels", "observed", *(name for name in self._sums if name.startswith("source."))}
        size = self._sums["examples"]
        days = sum(count for name, count in self._sums.items() if name.startswith("think."))
        found = {name: value / size if name in means else value for name, value in self._sums.items()}
        return {**found, "interests": self._sums["interests"] / max(days, 1.0)}
