"""The rows of the ranker and its signals: each answers with lists of item ids, as every recommender does.

`load(folder)` is what serving and MLflow ask; the folder describes itself as the registry wants it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.next_item.recommender import ListRequest, Ranking, Recommender
from training.ranker.bundle import Bundle
from training.ranker.candidates import candidates
from training.ranker.features import Table, features
from training.ranker.signals.base import Floats, Ints, Lists, Mask, Pairs, Questions, Signal

if TYPE_CHECKING:
    import pandas as pd

_IDS = {"type": "array", "items": {"type": "string"}}
_NUMBERS = {"type": "array", "items": {"type": "double"}}
_AT_ONCE = 512
_REASONS = 3
_BASELINE = "baseline.json"  # of a stand-in: see `dags.steps._models`
RANKER = "ranker"
"""The name of the ranker's row."""
POPULARITY = "popularity"
"""The signal that every shop has."""


def package(bundle: Bundle, folder: Path) -> None:
    """Write the bundle with its signature and an example; whole or not at all."""
    with new_folder(folder) as scratch:
        bundle.save(scratch)
        write_json(scratch / "signature.json", _signature(bundle.store_features))
        known = list(bundle.catalogue[:3])
        pq.write_table(pa.table({"history": [known, known[:1]]}), scratch / "example.parquet")


def _signature(store_features: Sequence[str]) -> dict[str, Any]:
    """What goes in and comes out. By it whoever serves knows what to ask of the feature store, by full names."""
    told = [{"name": name, "type": "double", "required": False} for name in store_features]
    return {
        "inputs": [
            {"name": "history", "required": True, **_IDS},
            {"name": "user_id", "type": "string", "required": False},
            *told,
        ],
        "outputs": [
            {"name": "items", "required": True, **_IDS},
            {"name": "scores", "required": True, **_NUMBERS},
        ],
        "params": [{"name": "k", "type": "long", "default": 10, "shape": None}],
    }


def package_baseline(packaged: Path, name: str, folder: Path) -> None:
    """Make `folder` from a packaged one: what answers for it is the row `name`, one of `rows`."""
    with new_folder(folder) as scratch:
        shutil.copytree(packaged, scratch, dirs_exist_ok=True)
        write_json(scratch / _BASELINE, {"name": name})


def load(folder: str | Path) -> Recommender:
    """What answers for a packaged folder; DataError where it holds signals alone and names none of them."""
    path = Path(folder)
    named = json.loads((path / _BASELINE).read_text())["name"] if (path / _BASELINE).is_file() else RANKER
    if row := rows(Bundle.load(path)).get(named):
        return row
    raise DataError(f"the folder holds no {named}", where=str(folder), do="use the `model/` of the ranker's evaluation")


def rows(bundle: Bundle) -> dict[str, Recommender]:
    """Each signal by its name, and last the ranker over them where one has been learnt."""
    found: dict[str, Recommender] = {name: SignalRow(bundle, name) for name in bundle.signals}
    return found | ({RANKER: RankerRow(bundle, bundle.ranker)} if bundle.ranker else {})


def newest(versions: Sequence[ModelVersion]) -> Path | None:
    """The folder of the challenger, else of the champion, else of what stands in for one; None where there is none."""
    by_role = {version.role: version for version in versions}
    found = [by_role[role] for role in ("challenger", "champion", "baseline") if role in by_role]
    return Path(found[0].folder) if found else None


def bundle_of(versions: Sequence[ModelVersion]) -> Bundle | None:
    """The newest of the versions that stand; None where there is none: no ranker has been trained yet."""
    folder = newest(versions)
    return Bundle.load(folder) if folder else None


class Reason(NamedTuple):
    """A signal, or a group of features, and what it adds to the score of an item, in units of the score."""

    name: str
    added: float


class Explained(NamedTuple):
    """An item of a list with its probability, and what speaks for it: most first, nothing where it only fills up."""

    item: str
    chance: float
    reasons: tuple[Reason, ...]

    @property
    def scored(self) -> tuple[str, float]:
        """Without its reasons."""
        return self.item, self.chance


class _Numbered(Recommender):
    """A recommender over the items of a bundle, by number."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.catalogue, self.rank_own = bundle, bundle.catalogue, bundle.rank_own
        self._row = {item: number for number, item in enumerate(self.catalogue)}

    def _numbers(self, items: Collection[str]) -> Ints:
        return np.array([self._row[item] for item in items if item in self._row], dtype=np.int64)

    def _questions(self, asked: Sequence[ListRequest]) -> Questions:
        nothing = np.empty(0, dtype=np.int64)
        histories = [self._numbers(one.history) for one in asked]
        pasts = [self.bundle.pasts.get(one.user or "", nothing) for one in asked]
        told = {
            name: np.array([one.store_features.get(name, np.nan) for one in asked], dtype=np.float32)
            for name in self.store_features
        }
        return Questions(histories, pasts, [one.user for one in asked], told)

    def _allowed(self, within: Collection[str] | None) -> Mask | None:
        if within is None:
            return None
        allowed = np.zeros(len(self.catalogue), dtype=bool)
        allowed[self._numbers(within)] = True
        return allowed

    def _filled(self, ranked: list[tuple[int, float]], k: int, left_out: Ints, allowed: Mask | None) -> Ranking:
        """The list, and behind it what is taken most often, until it is `k` long: with the score 0."""
        if len(ranked) < k:
            taken = {*(item for item, _ in ranked), *left_out.tolist()}
            more = (item for item in self._by_count if item not in taken and (allowed is None or allowed[item]))
            ranked += [(item, 0.0) for item, _ in zip(more, range(k - len(ranked)), strict=False)]
        return [(self.catalogue[item], score) for item, score in ranked[:k]]

    @cached_property
    def _by_count(self) -> list[int]:
        order: list[int] = np.lexsort((np.arange(len(self.catalogue)), -self.bundle.facts.counts)).tolist()
        return order


class SignalRow(_Numbered):
    """One signal's own lists."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        super().__init__(bundle)
        self.signal: Signal = bundle.signals[name]
        self.choice = bundle.fitted.choices.get(name)

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `Recommender.answer`."""
        allowed, left_out = self._allowed(within), [self._numbers(one.left_out) for one in asked]
        pairs, scores = self.signal.top(self._questions(asked), k + max(map(len, left_out), default=0), allowed)
        starts = np.searchsorted(pairs.questions, np.arange(len(asked) + 1))
        found = []
        for question, gone in enumerate(left_out):
            own, known = slice(starts[question], starts[question + 1]), set(gone.tolist())
            line = zip(pairs.items[own].tolist(), scores[own].tolist(), strict=True)
            kept = [(item, score) for item, score in line if item not in known]
            found.append(self._filled(kept, k, gone, allowed))
        return found


class Mixture(Protocol):
    """What puts candidates in order: a ranker, or what mixes one with more (see `Ranker`)."""

    def scores(self, table: Table) -> Floats:
        """See `Ranker.scores`."""

    def probabilities(self, scores: Floats) -> Floats:
        """See `Ranker.probabilities`."""

    def reasons(self, table: Table) -> tuple[tuple[str, ...], Floats]:
        """See `Ranker.reasons`."""


class RankerRow(_Numbered):
    """The ranker's lists: scores are calibrated probabilities that the item is what the user takes next."""

    def __init__(self, bundle: Bundle, ranker: Mixture) -> None:
        super().__init__(bundle)
        self.ranker, self.store_features = ranker, bundle.store_features

    def answer(self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None) -> list[Ranking]:
        """See `Recommender.answer`."""
        return [[item.scored for item in line] for line in self._lists(asked, k, within, explain=False)]

    def explained(
        self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None = None
    ) -> list[list[Explained]]:
        """The lists of `answer`, each item with what speaks for it."""
        return self._lists(asked, k, within, explain=True)

    def _lists(
        self, asked: Sequence[ListRequest], k: int, within: Collection[str] | None, *, explain: bool
    ) -> list[list[Explained]]:
        allowed, found = self._allowed(within), list[list[Explained]]()
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            left_out = [self._numbers(one.left_out) for one in part]
            pairs, chances, table = self._best(self._questions(part), k, allowed, left_out)
            reasons = self._reasons(table) if explain else [()] * len(pairs)
            starts = np.searchsorted(pairs.questions, np.arange(len(part) + 1))
            for question, gone in enumerate(left_out):
                own = slice(starts[question], starts[question + 1])
                why = dict(zip(pairs.items[own].tolist(), reasons[own], strict=True))
                line = list(zip(pairs.items[own].tolist(), chances[own].tolist(), strict=True))
                filled = self._filled(line, k, gone, allowed)
                found.append([Explained(*scored, why.get(self._row[scored[0]], ())) for scored in filled])
        return found

    def _best(
        self, questions: Questions, k: int, allowed: Mask | None, left_out: Sequence[Ints]
    ) -> tuple[Pairs, Floats, Table]:
        """The `k` best candidates of each question, best first, with their probabilities and their features."""
        among = candidates(self.bundle.mixed, questions, self.bundle.depth, allowed, left_out)
        table = features(self.bundle.mixed, among, questions, self.bundle.facts)
        scores, lists = self.ranker.scores(table), Lists()
        starts = np.searchsorted(among.pairs.questions, np.arange(len(questions) + 1))
        for question in range(len(questions)):
            own = slice(starts[question], starts[question + 1])
            lists.add(question, among.pairs.items[own], scores[own], k, None)
        pairs, best = lists.joined()
        rows = among.pairs.places(pairs, len(self.catalogue))
        return pairs, self.ranker.probabilities(best), Table(table.names, table.values[rows])

    def _reasons(self, table: Table) -> list[tuple[Reason, ...]]:
        """The groups of features that add most to the score of each row, if they add anything."""
        groups, added = self.ranker.reasons(table)
        order = np.argsort(-added, axis=1, kind="stable")[:, :_REASONS]
        return [
            tuple(Reason(groups[group], float(line[group])) for group in best if line[group] > 0.0)
            for best, line in zip(order.tolist(), added, strict=True)
        ]

    def chances(self, asked: Sequence[ListRequest], items: Sequence[Sequence[str]]) -> list[Floats]:
        """The probability of each of the `items` of each question as a list would have it, in their order: [items].

        They are judged beside the candidates of the question, so that what is said of their places is what serving
        would say. NaN for an item that the ranker does not know.
        """
        parts = [slice(start, start + _AT_ONCE) for start in range(0, len(asked), _AT_ONCE)]
        return [chances for part in parts for chances in self._chances(asked[part], items[part])]

    def _chances(self, asked: Sequence[ListRequest], items: Sequence[Sequence[str]]) -> list[Floats]:
        numbers = np.array([self._row.get(item, -1) for own in items for item in own], dtype=np.int64)
        lengths, size = [len(own) for own in items], len(self.catalogue)
        known, owners = numbers >= 0, np.repeat(np.arange(len(asked)), lengths)
        joined, questions = Pairs(owners[known], numbers[known]), self._questions(asked)
        left_out = [self._numbers(one.left_out) for one in asked]
        among = candidates(self.bundle.mixed, questions, self.bundle.depth, None, left_out, joined)
        table = features(self.bundle.mixed, among, questions, self.bundle.facts)
        keys = among.pairs.questions * size + among.pairs.items
        rows = np.searchsorted(keys, joined.questions * size + joined.items)
        values = np.full(len(numbers), np.nan, dtype=np.float32)
        values[known] = self.ranker.probabilities(self.ranker.scores(Table(table.names, table.values[rows])))
        return np.split(values, np.cumsum(lengths)[:-1])

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """The first `k` items and their probabilities for each row of `frame`.

        In: `history` (item ids, oldest first), `user_id` where users are known, and `store_features` where the feature
        store says something of them now. Out: `items`, `scores`.
        """
        import pandas as pd  # a stage that trains needs none of it

        histories = [[str(item) for item in history] for history in frame["history"]]
        nobody = [None] * len(frame)
        users = [str(user) for user in frame["user_id"]] if "user_id" in frame else nobody
        known = [name for name in self.store_features if name in frame]
        told = [
            {name: float(frame[name].iloc[n]) for name in known if pd.notna(frame[name].iloc[n])}
            for n in range(len(frame))
        ]
        asked = [
            ListRequest.after(history, user, row, rank_own=self.rank_own)
            for history, user, row in zip(histories, users, told, strict=True)
        ]
        lists = self.answer(asked, int(params.get("k", 10)), None)
        items = [[item for item, _ in ranking] for ranking in lists]
        return pd.DataFrame({"items": items, "scores": [[score for _, score in ranking] for ranking in lists]})
