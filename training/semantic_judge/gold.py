"""The gold set of a packaged judge: held-out pairs with their outcome, and held-out cases with their labels, frozen.

It lies in the judge's folder (`gold/`) with all that is needed to judge it, so each night judges exactly the same. Two
truths are in it. Of a pair it is the outcome: what the user preferred, by stars or by what was clicked. Of a case it is
the label: what the judge's teacher, or a person who has corrected it, has said; outcomes have no aspects.

How the judge fares on it is measured as it is packaged, on the path that serves, and frozen as `Bands`: what a later
night may differ by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.core.errors import LeftOut
from training.core.files import new_folder, write_json
from training.semantic_judge.aspects import UNKNOWN, Levels
from training.semantic_judge.examples import Candidate, Cases, Catalogue, Examples, Floats, Ints, Pairs, UserState
from training.semantic_judge.measures import Bootstrap, accuracy, right_order

Score = Callable[[Cases], Floats]
"""What a judge says of n cases: their scores [n]."""
FOLDER = "gold"
EXPOSURE = "exposure"
_CASES, _PAIRS, _BANDS = "cases.parquet", "pairs.parquet", "bands.json"
_CASE_SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("as_of", pa.date32()),
        ("history", pa.list_(pa.string())),
        ("ratings", pa.list_(pa.float64())),
        ("profile", pa.string()),
        ("context", pa.string()),
        ("item_id", pa.string()),
        ("mean_rating", pa.float64()),
        ("events", pa.float64()),
        ("levels", pa.list_(pa.int8())),
        ("labelled", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class GoldConfig:
    """`pairs`, `labelled`: so many held-out pairs and labelled cases at most, those of the lowest hashes.

    Bands that the gold set itself does not set (INFERRED): `slope` of scores over the length of titles, both
    standardised; `spread` as a share of that on the gold set; `most_frequent`: the share of cases that may have one and
    the same score.
    """

    pairs: int = 1000
    labelled: int = 1000
    slope: float = 0.3
    spread: float = 0.25
    most_frequent: float = 0.5
    resamples: int = 1000


@dataclass(frozen=True)
class Bands:
    """What a night must keep to: the least `agreement` with the pairs' outcomes (the lower end of its 95 % interval as
    it was packaged), `slope_low` to `slope_high` of scores over the length of titles, the least `spread` of scores
    (standard deviation), the largest share of the `most_frequent` one, and how far scores may `repeat` off when they
    are asked again among others."""

    agreement: float
    slope_low: float
    slope_high: float
    spread: float
    most_frequent: float
    repeat: float


@dataclass(frozen=True, eq=False)
class GoldSet:
    """`cases` [n] with `levels` [n, K], of which those at `labelled` were drawn as labelled ones; the case at
    `preferred` [pairs] was preferred to the one at `other` [pairs], and the `source` [pairs] says so."""

    cases: Cases
    levels: Levels
    labelled: Ints
    preferred: Ints
    other: Ints
    source: NDArray[np.str_]

    @classmethod
    def drawn(cls, examples: Examples, levels: Levels, pairs: Pairs, config: GoldConfig, seed: int) -> Self:
        """Of the test part: pairs, and cases of which some aspect is labelled. LeftOut where there is no pair."""
        held = pairs.of_subset("test")
        chosen = held.chosen(_lowest(_names(examples, held.preferred, held.other), config.pairs, seed))
        if not len(chosen):
            raise LeftOut("there is no test pair to hold a judge to", do="wait for more events, or move the cut dates")
        test = examples.rows_of("test")
        known = test[(levels[test] != UNKNOWN).any(axis=1)]
        labelled = known[_lowest(_names(examples, known), config.labelled, seed)]
        rows = np.unique(np.concatenate([chosen.preferred, chosen.other, labelled]))
        told, preferred, other = (np.searchsorted(rows, own) for own in (labelled, chosen.preferred, chosen.other))
        return cls(examples.cases.chosen(rows), levels[rows], told, preferred, other, chosen.source)

    @property
    def users(self) -> list[str]:
        """The user of each case: [n]."""
        return [self.cases.states.users[state] for state in self.cases.state.tolist()]

    @property
    def simulated(self) -> bool:
        """Whether outcomes of a simulated market are among the pairs."""
        return bool((self.source == EXPOSURE).any())

    def right(self, score: Floats) -> NDArray[np.float64]:
        """1 where the scores [n] order a pair as the user did, 1/2 where they tie, else 0: [pairs]."""
        places = Pairs(self.preferred, self.other, self.source, np.zeros(len(self.source), dtype=np.int8))
        return right_order(score, places)

    def bands(self, score: Score, again: Score, config: GoldConfig, seed: int) -> Bands:
        """Frozen from what the judge says of the cases as it is packaged; `again`: the same, loaded a second time.

        A judge that multiplies in bf16 adds in another order in another batch, so how far it repeats off is measured.
        """
        said, users = score(self.cases), self.users
        off = np.abs(in_batches(again, self.cases, np.random.default_rng(seed).permutation(len(users))) - said).max()
        owners = [users[case] for case in self.preferred.tolist()]
        found = accuracy(self.right(said), owners, Bootstrap(seed, config.resamples))
        slope = length_slope(said, title_lengths(self.cases))
        return Bands(
            found.lo,
            min(slope, 0.0) - config.slope,
            max(slope, 0.0) + config.slope,
            config.spread * float(said.std()),
            max(config.most_frequent, most_frequent(said)),
            max(_SAME, 2.0 * float(off)),
        )

    def save(self, folder: Path, bands: Bands) -> None:
        """Write what `load` reads, whole or not at all, into the judge's folder. Users get numbers for names."""
        with new_folder(folder / FOLDER) as scratch:
            pq.write_table(self._table(), scratch / _CASES)
            columns = {"preferred": self.preferred, "other": self.other, "source": self.source.tolist()}
            pq.write_table(pa.table(columns), scratch / _PAIRS)
            write_json(scratch / _BANDS, asdict(bands))

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> tuple[Self, Bands]:
        """Of a judge's folder, over its own catalogue. LeftOut where it was packaged without one."""
        path = folder / FOLDER
        if not (path / _BANDS).is_file():
            raise LeftOut(
                "the judge was packaged without a gold set, so nobody could say whether its scores hold",
                where=str(folder),
                do="train the judge anew, and promote what comes of it",
            )
        rows = pq.read_table(path / _CASES).to_pylist()
        users = [_state(row) for row in rows]
        found = [Candidate(row["item_id"], row["mean_rating"], row["events"]) for row in rows]
        cases = Cases.of(catalogue, users, found)
        levels = np.array([row["levels"] for row in rows], dtype=np.int8)
        pairs = pq.read_table(path / _PAIRS)
        preferred, other = (pairs[name].to_numpy().astype(np.int64) for name in ("preferred", "other"))
        labelled = np.flatnonzero([row["labelled"] for row in rows])
        gold = cls(cases, levels, labelled, preferred, other, np.array(pairs["source"].to_pylist()))
        return gold, Bands(**json.loads((path / _BANDS).read_text()))

    def _table(self) -> pa.Table:
        number = {user: f"g{place}" for place, user in enumerate(dict.fromkeys(self.users))}
        labelled = np.isin(np.arange(len(self.cases)), self.labelled)
        rows = []
        for row, owner in enumerate(self.users):
            user, item = self.cases.user(row), self.cases.judged(row)
            state = {"history": user.history, "ratings": user.ratings, "profile": user.profile, "context": user.context}
            known = {"mean_rating": _known(self.cases.mean_rating[row]), "events": _known(self.cases.events[row])}
            told = {"levels": self.levels[row].tolist(), "labelled": bool(labelled[row])}
            rows.append({"user": number[owner], "as_of": user.as_of, "item_id": item.item_id, **state, **known, **told})
        return pa.Table.from_pylist(rows, schema=_CASE_SCHEMA)


def in_batches(score: Score, cases: Cases, order: Ints) -> Floats:
    """The scores of the cases [n], asked in this order, some at a time; NaN of cases that are not in it."""
    found = np.full(len(cases), np.nan, dtype=np.float32)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        found[rows] = score(cases.chosen(rows))
    return found


def title_lengths(cases: Cases) -> Ints:
    """Characters of the title of each case's item: [n]."""
    own = np.array([len(item.title or "") for item in cases.catalogue.items], dtype=np.int64)
    return own[cases.item]


def length_slope(score: NDArray[np.floating], lengths: Ints) -> float:
    """The slope of scores [n] over lengths [n], both standardised: their correlation; 0 where one is constant."""
    x, y = lengths.astype(np.float64), score.astype(np.float64)
    if not len(x) or x.std() < _ALIKE or y.std() < _ALIKE:
        return 0.0
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def most_frequent(score: NDArray[np.floating]) -> float:
    """The share of the commonest score, to three decimals; 0 of none."""
    _, counts = np.unique(np.round(score.astype(np.float64), 3), return_counts=True)
    return float(counts.max() / len(score)) if len(score) else 0.0


_ALIKE = 1e-9
_SAME = 1e-4  # of a score
_BATCH = 97  # of no size that anything else has


def _lowest(names: Sequence[str], most: int, seed: int) -> Ints:
    """The places of the names with the lowest hashes, in their order: more of them come beside those of before."""
    hashes = [hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest() for name in names]
    return np.sort(np.array(sorted(range(len(names)), key=lambda place: hashes[place])[:most], dtype=np.int64))


def _names(examples: Examples, *rows: Ints) -> list[str]:
    cases = examples.cases
    columns = [
        [f"{cases.states.users[cases.state[row]]} {cases.states.days[cases.state[row]]} {cases.judged(row).item_id}"
         for row in own.tolist()]
        for own in rows
    ]  # fmt: skip
    return [" ".join(one) for one in zip(*columns, strict=True)]


def _state(row: dict[str, object]) -> UserState:
    history, ratings, as_of = row["history"], row["ratings"], row["as_of"]
    assert isinstance(history, list) and isinstance(ratings, list) and isinstance(as_of, date)
    profile, context = (None if row[name] is None else str(row[name]) for name in ("profile", "context"))
    return UserState(str(row["user"]), as_of, tuple(history), tuple(ratings), profile, context)


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
