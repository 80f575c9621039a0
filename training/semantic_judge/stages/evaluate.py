"""Stage: the judge and cheap rows beside it on held-out pairs and labels, and the judge packaged for serving.

Pairs say what users preferred: stars, which are real, or what was clicked below what was not, of a simulated market.
Labels say what the teacher would have said; agreeing with it is worth as much as the teacher is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.core.errors import DataError, LeftOut
from training.core.metrics import Interval
from training.core.stage import StageResult, StageSpec, resolve_config
from training.next_item.comparison import VALUES_SCHEMA, metrics_table
from training.semantic_judge.abstention import Abstention, AbstentionConfig, distances_of, one_each
from training.semantic_judge.aggregator import load_aggregator
from training.semantic_judge.aspects import UNKNOWN, Aspect
from training.semantic_judge.baselines import MAJORITY, baselines
from training.semantic_judge.engine import Kind
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.example_tables import EXAMPLES, read_pairs
from training.semantic_judge.examples import EPOCH, Examples, Floats, Ints, Pairs, rows_to_learn
from training.semantic_judge.gold import GoldConfig, GoldSet
from training.semantic_judge.judge import Aggregator, Scorer, Scores, Uniform
from training.semantic_judge.measures import (
    Bootstrap,
    accuracy,
    calibration_error,
    level_auc,
    pair_auc,
    right_order,
    users_of,
)
from training.semantic_judge.parts import aggregator_of
from training.semantic_judge.routing import Routed
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.serve import Judge, Language, Learnt, package
from training.semantic_judge.taught import Taught, encoder_of

JUDGE = "judge"
"""The name of the row that is packaged, which is what the gate holds and what scores at night."""
EVIDENCE = "evidence"
"""That of the row of the evidence judge, where another one is packaged."""
UNIFORM_WEIGHTS = "evidence_uniform"
"""That of the evidence judge with uniform weights, where Part B hands on others, by which all rows are weighed."""
ROUTED = "routed"
"""That of the row in which a language scorer judges what the judge of evidence doubts."""
MEMBERS = "members"
"""The slice of labels that is of the members of pairs: language scorers, which are slow, judge no other examples."""
_EXPOSURE = "exposure"
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """`pairs`: of so many pairs of a part at most, drawn with the seed. `scorers`: rows of language scorers, each by
    the stage whose model it is, read by `engine`. `routed`: the share of cases, those that the judge of evidence doubts
    most on validation, that go to the last of them in a row of its own; null: there is no such row. `serves`: which
    row is packaged, and called the judge: `evidence`, one of `scorers`, or `routed`; where its stage was left out it is
    `evidence`. `gold`: what is frozen into the package for the checks of each night. `abstention`: how often the
    verdicts that count may be wrong."""

    pairs: int | None = 20_000
    resamples: int = 1000
    scorers: Mapping[str, str] = field(default_factory=dict)
    routed: float | None = None
    engine: Kind = "core"
    serves: str = EVIDENCE
    gold: GoldConfig = field(default_factory=GoldConfig)
    abstention: AbstentionConfig = field(default_factory=AbstentionConfig)


def main(spec: StageSpec) -> StageResult:
    """Measure all rows; hand on `model/`."""
    config = resolve_config(spec, Config)
    taught = Taught.load(spec)
    pairs = read_pairs(spec, taught.examples)
    judge = EvidenceJudge.load(spec.artifact("evidence") / "judge", taught.evidence)
    held = _Held(taught, judge, _drawn(pairs.of_subset("test"), config.pairs, spec.seed))
    by = Bootstrap(spec.seed, config.resamples)
    values, lines = list[pa.Table](), Lines()
    learn = rows_to_learn(taught.examples, pairs, "train")
    made = aggregator_of(spec)
    aggregator = load_aggregator(made, judge.aspects) if made else Uniform(judge.aspects)
    scorers = _scorers(spec, config, taught, judge)
    first, language = (JUDGE, None) if config.serves not in scorers else (EVIDENCE, _language(spec, config, scorers))
    said = {first: [own[held.members] for own in held.chances]}
    rows = dict(baselines(taught.examples, pairs, taught.evidence, taught.numbers, learn, spec.seed))
    if not isinstance(aggregator, Uniform):
        rows[UNIFORM_WEIGHTS] = held.score_of(said[first], Uniform(judge.aspects))
    for name, scores in (*rows.items(), (first, held.score_of(said[first], aggregator))):
        lines += held.of_pairs(name, scores, by)
        values.append(held.pair_values(name, scores))
    test = taught.examples.rows_of("test")
    for _, found, table in held.of_labels({first: [own[test] for own in held.chances]}, test, "all", learn, by):
        lines += found
        values.append(table)
    metrics = dict[str, float]()
    for row, scorer in scorers.items():
        name = JUDGE if row == config.serves else row
        if isinstance(scorer, Routed):
            said[name], asked = scorer.judged(taught.examples.cases.chosen(held.members))
            metrics |= {"routed": float(asked.sum()), "judged": float(len(asked))}
            share = Interval(float(asked.mean()), 0.0, 0.0, len(asked))
            lines.append({**_line(name, ROUTED, MEMBERS, share, len(asked)), **_NO_ENDS})
        else:
            said[name] = held.judged(scorer)
        scores = held.score_of(said[name], aggregator)
        lines += held.of_pairs(name, scores, by)
        values.append(held.pair_values(name, scores))
    if len(said) > 1:
        for name, found, table in held.of_labels(said, held.members, MEMBERS, learn, by):
            lines += found
            values += [table] if name not in (MAJORITY, first) else []
        # A pair is of the day of its later event: a member may be no test example, and is one of all rows or of none.
        values += held.values_beside(first, said[first], test, learn, by)
    encoder = encoder_of(spec.artifact("teach"))
    package(taught.evidence, judge, encoder, made, learnt(taught.examples), spec.out_dir / "model", language)
    metrics |= _frozen(taught, pairs, spec.out_dir / "model", config, spec.seed)
    metrics |= _abstaining(taught, pairs, Judge.load(spec.out_dir / "model", config.engine), config, spec.seed)
    return _written(spec, held, lines, values, metrics)


def _frozen(taught: Taught, pairs: Pairs, folder: Path, config: Config, seed: int) -> dict[str, float]:
    """Put the gold set into the package, with what the packaged judge itself says of it."""
    gold = GoldSet.drawn(taught.examples, taught.levels, pairs, config.gold, seed)
    judge, twin = (Judge.load(folder, config.engine) for _ in range(2))
    bands = gold.bands(judge.score_of, twin.score_of, config.gold, seed)
    gold.save(folder, bands)
    sizes = {"gold.pairs": float(len(gold.preferred)), "gold.labelled": float(len(gold.labelled))}
    return sizes | {f"gold.{name}": value for name, value in asdict(bands).items()}


def _abstaining(taught: Taught, pairs: Pairs, judge: Judge, config: Config, seed: int) -> dict[str, float]:
    """How many pairs the packaged judge has a verdict on that counts, by validation, and how many of them are wrong."""
    distances = dict[str, NDArray[np.float64]]()
    for part in ("valid", "test"):
        own = _drawn(pairs.of_subset(part), config.pairs, seed)
        if not len(own):
            return {}
        drawn = one_each(own, users_of(taught.examples, own.preferred), seed)
        members = np.unique(np.concatenate([drawn.preferred, drawn.other]))
        distances[part] = distances_of(judge.score_of(taught.examples.cases.chosen(members)), members, drawn)
    found = Abstention.of(distances["valid"], config.abstention)
    sizes = {"gap": found.gap, "bound": found.bound, **found.measured(distances["test"])}
    known = {name: value for name, value in sizes.items() if np.isfinite(value)}
    return {f"abstention.{name}": value for name, value in known.items()}


def learnt(examples: Examples) -> Learnt:
    """What a judge has learnt of that learnt from the training part."""
    states = examples.cases.states.chosen(np.unique(examples.cases.state[examples.rows_of("train")]))
    until = EPOCH + timedelta(days=int(states.days.max()))
    return Learnt(until.isoformat(), int(np.diff(states.starts).max()))


class _Held:
    """The judge on what is held out."""

    def __init__(self, taught: Taught, judge: EvidenceJudge, pairs: Pairs) -> None:
        if not len(pairs):
            raise LeftOut(
                "there is no test pair", where="judge_pairs", do="wait for more events, or move the cut dates"
            )
        self.taught, self.pairs, self.judge = taught, pairs, judge
        self.members = np.unique(np.concatenate([pairs.preferred, pairs.other]))
        self.chances = judge.chances_of(taught.numbers)

    def of_pairs(self, name: str, scores: Floats, by: Bootstrap) -> Lines:
        """Pair accuracy and AUC of a row, of all pairs and by where they come from."""
        lines = Lines()
        for slice_, chosen in self._slices().items():
            pairs = self.pairs.chosen(chosen)
            users = users_of(self.taught.examples, pairs.preferred)
            right = right_order(scores, pairs)
            scored = int((~np.isnan(right)).sum())
            lines.append(_line(name, "pair_accuracy", slice_, accuracy(right, users, by), scored))
            lines.append(_line(name, "pair_auc", slice_, pair_auc(scores, pairs, users, by), scored))
        return lines

    def pair_values(self, name: str, scores: Floats) -> pa.Table:
        """`eval_values` of a row: each pair, in the slice of its source."""
        cases, pairs = self.taught.examples.cases, self.pairs
        days = cases.states.days[cases.state[pairs.preferred]].tolist()
        members = zip(days, cases.item[pairs.preferred].tolist(), cases.item[pairs.other].tolist(), strict=True)
        ids = cases.catalogue.items
        samples = [f"{EPOCH + timedelta(days=day)} {ids[a].item_id} {ids[b].item_id}" for day, a, b in members]
        users = users_of(self.taught.examples, pairs.preferred)
        slices = [[source] for source in pairs.source.tolist()]
        return _values(name, "pair_accuracy", users, samples, slices, right_order(scores, pairs))

    def judged(self, scorer: Scorer) -> list[Floats]:
        """What a scorer says of the members of the pairs: K arrays [members, levels]."""
        return scorer.chances(self.taught.examples.cases.chosen(self.members))

    def score_of(self, chances: Sequence[Floats], aggregator: Aggregator) -> Floats:
        """The score [n] that an aggregator's weights make of what is said of the members; NaN elsewhere."""
        cases = self.taught.examples.cases
        found = np.full(len(cases), np.nan, dtype=np.float32)
        found[self.members] = Scores.of(chances, self.judge.aspects, aggregator, cases.chosen(self.members)).score
        return found

    def of_labels(
        self, said: Mapping[str, Sequence[Floats]], rows: Ints, slice_: str, learn: Ints, by: Bootstrap
    ) -> Iterator[tuple[str, Lines, pa.Table]]:
        """PointAcc of each aspect beside always saying what the training part says most, and PairAUC of each row.

        `said`: by row, K arrays [rows, levels]. Gives the row, its lines and its values.
        """
        levels, examples = self.taught.levels, self.taught.examples
        for k, aspect in enumerate(self.judge.aspects):
            known = levels[rows, k] != UNKNOWN
            own, truth = rows[known], levels[rows[known], k]
            if not len(own):
                continue
            seen = levels[learn, k]
            usual = int(np.bincount(seen[seen != UNKNOWN]).argmax())
            users, metric = users_of(examples, own), f"point_accuracy.{aspect.name}"
            samples = self._samples(own)
            chances = {MAJORITY: None, **{name: one[k][known] for name, one in said.items()}}
            for name, one in chances.items():
                given = np.full(len(own), usual) if one is None else one.argmax(axis=1)
                right = (given == truth).astype(np.float64)
                lines = [_line(name, metric, slice_, accuracy(right, users, by), len(own))]
                if one is not None:
                    lines += _counts(name, aspect, slice_, one, truth)
                slices = [[]] * len(own) if slice_ == "all" else [[slice_]] * len(own)
                yield name, lines, _values(name, metric, users, samples, slices, right)

    def values_beside(
        self, name: str, said: Sequence[Floats], rows: Ints, learn: Ints, by: Bootstrap
    ) -> list[pa.Table]:
        """`eval_values` of what the row `name` says of the members, `said`, that are not among `rows`."""
        beside = ~np.isin(self.members, rows)
        own = {name: [one[beside] for one in said]}
        return [table for _, _, table in self.of_labels(own, self.members[beside], MEMBERS, learn, by)]

    def _samples(self, rows: Ints) -> list[str]:
        cases = self.taught.examples.cases
        days = cases.states.days[cases.state[rows]].tolist()
        items = [cases.catalogue.items[item].item_id for item in cases.item[rows].tolist()]
        return [f"{EPOCH + timedelta(days=day)} {item}" for day, item in zip(days, items, strict=True)]

    def _slices(self) -> Mapping[str, NDArray[np.bool_]]:
        source = self.pairs.source
        return {
            "all": np.ones(len(source), dtype=bool),
            **{name: source == name for name in np.unique(source).tolist()},
        }


_NO_ENDS = {"lo": None, "hi": None}


def _counts(name: str, aspect: Aspect, slice_: str, chances: Floats, truth: NDArray[np.int8]) -> Lines:
    values = chances @ np.array(aspect.values, dtype=np.float32)
    found = {"pair_auc": level_auc(values, truth), "calibration_error": calibration_error(chances, truth)}
    size = len(truth)
    return [
        {**_line(name, f"{metric}.{aspect.name}", slice_, Interval(value, 0.0, 0.0, size), size), **_NO_ENDS}
        for metric, value in found.items()
    ]


def _scorers(spec: StageSpec, config: Config, taught: Taught, judge: EvidenceJudge) -> dict[str, Scorer]:
    """The language scorers whose stages were not left out, and what is routed to the last of them. DataError where
    what is to be served is the row of none."""
    if config.serves not in (EVIDENCE, ROUTED, *config.scorers) or (config.serves == ROUTED and config.routed is None):
        raise DataError(
            f"there is no row {config.serves} to serve",
            why=f"the rows that can be are {EVIDENCE}, {', '.join(config.scorers)} and, with `routed`, {ROUTED}",
            do="set `serves` of the stage evaluate to one of them",
        )
    found: dict[str, Scorer] = {
        name: LanguageScorer.load(spec.artifact(stage) / "model", taught.evidence, config.engine)
        for name, stage in config.scorers.items()
        if not spec.left_out(stage)
    }
    if found and config.routed is not None:
        valid = taught.examples.cases.chosen(taught.examples.rows_of("valid"))
        found[ROUTED] = Routed.of(judge, list(found.values())[-1], valid, config.routed)
    return found


def _language(spec: StageSpec, config: Config, scorers: Mapping[str, Scorer]) -> Language | None:
    """What the package has of a language scorer; None where nothing is routed to it."""
    served = scorers[config.serves]
    name = [row for row in scorers if row != ROUTED][-1] if isinstance(served, Routed) else config.serves
    threshold = served.threshold if isinstance(served, Routed) else None
    asked = threshold is None or np.isfinite(threshold)
    return Language(spec.artifact(config.scorers[name]) / "model", threshold) if asked else None


def _drawn(pairs: Pairs, limit: int | None, seed: int) -> Pairs:
    if limit is None or len(pairs) <= limit:
        return pairs
    return pairs.chosen(np.sort(np.random.default_rng(seed).permutation(len(pairs))[:limit]))


def _line(model: str, metric: str, slice_: str, found: Interval, scored: int) -> dict[str, Any]:
    ends = {"value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "scored": scored}
    return {"model": model, "metric": metric, "slice": slice_, **ends, "reason": None}


def _values(
    model: str, name: str, users: list[str], samples: list[str], slices: list[list[str]], values: NDArray[np.float64]
) -> pa.Table:
    size = len(users)
    words = {"model": [model] * size, "split": ["time"] * size, "name": [name] * size}
    columns = {**words, "unit": users, "sample": samples, "slices": slices}
    arrays = {key: pa.array(column, VALUES_SCHEMA.field(key).type) for key, column in columns.items()}
    return pa.table(arrays | {"value": pa.array(values, mask=np.isnan(values))}).select(VALUES_SCHEMA.names)


def _written(
    spec: StageSpec, held: _Held, lines: Lines, values: list[pa.Table], counted: Mapping[str, float]
) -> StageResult:
    """The tables `model_metrics` and `eval_values`; pairs of exposures, and what they are part of, are simulated."""
    origin, sources = spec.tables[EXAMPLES].origin, set(held.pairs.source.tolist())
    last = EPOCH + timedelta(days=int(held.taught.examples.cases.states.days.max()))
    simulated = {_EXPOSURE, "all"} if _EXPOSURE in sources else set[str]()
    parts = [
        metrics_table([line for line in lines if line["slice"] in simulated], "simulated", "time", last),
        metrics_table([line for line in lines if line["slice"] not in simulated], origin, "time", last),
    ]
    tables = {"model_metrics": pa.concat_tables(parts), "eval_values": pa.concat_tables(values)}
    files = {name: f"tables/{name}/part-0.parquet" for name in tables}
    for name, file in files.items():
        (spec.out_dir / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables[name], spec.out_dir / file)
    metrics = {"test_pairs": float(len(held.pairs)), **counted}
    for line in lines:
        key = f"{line['model']}.{line['metric']}" + ("" if line["slice"] == "all" else f".{line['slice']}")
        ends = {key: line["value"], f"{key}.lo": line["lo"], f"{key}.hi": line["hi"]}
        metrics |= {name: value for name, value in ends.items() if value is not None}
    return StageResult(metrics, {name: (file,) for name, file in files.items()})
