"""A judge in a folder of its own: what evaluation measures and what serving loads.

`evidence/` has the catalogue and its vectors, `judge/` the models of the aspects, `language/` a language scorer where
one judges, or is asked where the first doubts by `routing.json`, `aggregator/` what counts for whom (without it all
aspects count the same), `encoder.json` the encoder, and `learnt.json` what it has learnt of. The folder describes
itself with `signature.json` and `example.parquet`, as the registry wants it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.config import parse_config
from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.semantic_judge.aggregator import load_aggregator
from training.semantic_judge.aspects import CONTEXT, Aspect
from training.semantic_judge.encoder import Encoder, EncoderConfig
from training.semantic_judge.engine import Kind
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.examples import EPOCH, Candidate, Cases, Floats, Item, UserState
from training.semantic_judge.judge import Aggregator, Scorer, Scores, Uniform
from training.semantic_judge.parts import AGGREGATOR
from training.semantic_judge.routing import Routed
from training.semantic_judge.scorer import LanguageScorer

if TYPE_CHECKING:
    import pandas as pd

_ENCODER, _LANGUAGE, _ROUTING, _LEARNT = "encoder.json", "language", "routing.json", "learnt.json"
_STRINGS = {"type": "array", "items": {"type": "string"}}
_NUMBERS = {"type": "array", "items": {"type": "double"}}
_INPUTS = (
    {"name": "as_of", "type": "string", "required": True},
    {"name": "history", "required": True, **_STRINGS},
    {"name": "ratings", "required": True, **_NUMBERS},
    {"name": "item_id", "type": "string", "required": True},
    {"name": "mean_rating", "type": "double", "required": False},
    {"name": "events", "type": "double", "required": False},
    {"name": "context", "type": "string", "required": False},
    {"name": "profile", "type": "string", "required": False},
)


@dataclass(frozen=True)
class Learnt:
    """What a judge has learnt of: training examples as of days up to `until` (ISO), whose teachers know no day of
    another part, and histories of at most `history` items.

    Where users are parted, not days, the last day is the data's, and no later one is held out of the judge.
    """

    until: str
    history: int

    @property
    def until_day(self) -> int:
        """Days since 1970."""
        return (date.fromisoformat(self.until) - EPOCH).days


class Judge:
    """Part A and Part B over one catalogue. `learnt`: None where the folder is of before it was noted."""

    def __init__(
        self, evidence: Evidence, scorer: Scorer, aggregator: Aggregator, learnt: Learnt | None = None
    ) -> None:
        self.evidence, self.scorer, self.aggregator, self.learnt = evidence, scorer, aggregator, learnt

    @property
    def aspects(self) -> Sequence[Aspect]:
        """Those that it scores: K."""
        return self.scorer.aspects

    @classmethod
    def load(cls, folder: str | Path, engine: Kind = "core") -> Judge:
        """Read what `package` wrote; a language scorer is read by `engine`. DataError for a folder that is none."""
        path = Path(folder)
        if not (path / _ENCODER).is_file():
            raise DataError("the folder is no packaged judge", where=str(path), do="use the `model/` of evaluate")
        config = parse_config(EncoderConfig, json.loads((path / _ENCODER).read_text()), str(path / _ENCODER))
        evidence = Evidence.load(path / "evidence", Encoder(config))
        scorer = _scorer(path, evidence, engine)
        told = path / AGGREGATOR
        aggregator = load_aggregator(told, scorer.aspects) if told.is_dir() else Uniform(scorer.aspects)
        noted = path / _LEARNT
        learnt = parse_config(Learnt, json.loads(noted.read_text()), str(noted)) if noted.is_file() else None
        return cls(evidence, scorer, aggregator, learnt)

    def over(self, items: Sequence[Item]) -> Judge:
        """The same judge on another day's catalogue: `items`, and behind them what histories may hold of before."""
        evidence = self.evidence.over(items)
        return Judge(evidence, self.scorer.over(evidence), self.aggregator, self.learnt)

    def scores(self, users: Sequence[UserState], candidates: Sequence[Candidate]) -> Scores:
        """Of each user and candidate at the same place. DataError for an item that the catalogue does not have."""
        return self.scores_of(Cases.of(self.evidence.catalogue, users, candidates))

    def scores_of(self, cases: Cases) -> Scores:
        """The same of cases in columns."""
        return Scores.of(self.scorer.chances(cases), self.aspects, self.aggregator, cases)

    def score_of(self, cases: Cases) -> Floats:
        """The score alone: [n]."""
        return self.scores_of(cases).score

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        """A row for each of `frame`: the value of each aspect and the `score`; no `context` of a row without one.

        In: `as_of` (ISO day), `history` and `ratings` (oldest first, NaN where none was given), `item_id`, and where
        they are known `mean_rating` and `events` of the item in the year before, the `context` and the `profile`.
        """
        import pandas as pd  # a stage that trains needs none of it

        rows = frame.to_dict("records")
        found = self.scores([_user(row) for row in rows], [_candidate(row) for row in rows])
        columns = {aspect.name: found.aspects[:, k] for k, aspect in enumerate(self.aspects)}
        return pd.DataFrame(
            {name: values.astype(np.float64) for name, values in (columns | {"score": found.score}).items()}
        )


def load(folder: str | Path) -> Judge:
    """What answers for a packaged folder."""
    return Judge.load(folder)


@dataclass(frozen=True)
class Language:
    """The language scorer of a package: the `model` folder of its stage; `threshold`: it is asked about what the judge
    of evidence doubts so much (`routing`), None: about everything."""

    folder: Path
    threshold: float | None


def package(
    evidence: Evidence,
    judge: EvidenceJudge,
    encoder: EncoderConfig,
    aggregator: Path | None,
    learnt: Learnt,
    folder: Path,
    language: Language | None = None,
) -> None:
    """Write the judge with its signature and an example; whole or not at all. `aggregator`: the folder of Part B."""
    with new_folder(folder) as scratch:
        if aggregator:
            shutil.copytree(aggregator, scratch / AGGREGATOR)
        if language:
            shutil.copytree(language.folder, scratch / _LANGUAGE)
            write_json(scratch / _ROUTING, {"threshold": language.threshold})
        for name, part in (("evidence", evidence), ("judge", judge)):
            (scratch / name).mkdir()
            part.save(scratch / name)
        write_json(scratch / _ENCODER, asdict(encoder))
        write_json(scratch / _LEARNT, asdict(learnt))
        outputs = [
            {"name": name, "type": "double", "required": name != CONTEXT.name} for name in _columns(judge.aspects)
        ]
        write_json(scratch / "signature.json", {"inputs": list(_INPUTS), "outputs": outputs, "params": []})
        known = [item.item_id for item in evidence.catalogue.items[:2]]
        pq.write_table(_example(known), scratch / "example.parquet")


def _scorer(path: Path, evidence: Evidence, engine: Kind) -> Scorer:
    """Part A of the package."""
    first = EvidenceJudge.load(path / "judge", evidence)
    if not (path / _ROUTING).is_file():
        return first
    threshold = json.loads((path / _ROUTING).read_text())["threshold"]
    language = LanguageScorer.load(path / _LANGUAGE, evidence, engine)
    return language if threshold is None else Routed(first, language, float(threshold))


def _columns(aspects: Sequence[Aspect]) -> list[str]:
    return [*(aspect.name for aspect in aspects), "score"]


def _example(known: Sequence[str]) -> pa.Table:
    return pa.table(
        {
            "as_of": ["2026-01-01", "2026-01-01"],
            "history": pa.array([[known[0]], []], pa.list_(pa.string())),
            "ratings": pa.array([[5.0], []], pa.list_(pa.float64())),
            "item_id": [known[-1], known[-1]],
            "mean_rating": pa.array([4.0, None], pa.float64()),
            "events": pa.array([3.0, None], pa.float64()),
            "context": ["a lamp", "a pen"],
            "profile": pa.array(["likes pens", None], pa.string()),
        }
    )


def _user(row: Mapping[str, Any]) -> UserState:
    ratings = tuple(_number(rating) for rating in row["ratings"])
    profile, context = (own if isinstance(own := row.get(name), str) else None for name in ("profile", "context"))
    history, day = tuple(str(item) for item in row["history"]), date.fromisoformat(row["as_of"])
    return UserState("", day, history, ratings, profile, context)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(str(row["item_id"]), _number(row.get("mean_rating")), _number(row.get("events")))


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
