"""The gate: does a version deserve to be champion? A pure function of its gate file, its ranks and its run's metrics.

A rule against the champion or a baseline is judged on the SAME samples of the SAME users, by the paired bootstrap per
user; samples that only one side has are counted and limited. The first version of a model has no champion to meet: its
limits and its baselines decide.

A rule against the champion holds against earlier ones too, where they ranked the same samples: a loss that is put up
with at each promotion would add up from champion to champion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from registry.gate_file import CHAMPION, Gate, Rule
from registry.gate_report import Check, GateReport
from registry.values import Interval, Pairs, difference, in_slice, is_rank_metric, level, of_model, pair


@dataclass(frozen=True)
class DataQuality:
    """What the ledger says of the data behind a version; `problems` is empty where it is green."""

    problems: tuple[str, ...]
    partitions: int


@dataclass(frozen=True)
class Candidate:
    """A version as the gate sees it: its evaluation's ranks (baselines too), its run's metrics, its data's origin."""

    version: str
    ranks: pd.DataFrame
    metrics: Mapping[str, float]
    origin: str


Opponents = Mapping[str, Mapping[str, Pairs]]
"""What a rule may be `against` to the versions or rows that it means, by their names, on the samples of both."""


def evaluate(
    gate: Gate,
    candidate: Candidate,
    champion: Candidate | None,
    quality: DataQuality,
    earlier: Sequence[Candidate] = (),
) -> GateReport:
    """Hold `gate` against a version; `earlier` were champions before. Without a champion the rules against it pass.

    Raises:
        DataError: the ranks hold no rows of the model, of a baseline that a rule names, or of the champion.
    """
    rows = of_model(candidate.ranks, gate.evaluated_as, gate.split)
    pairs = dict(_opponents(gate, rows, candidate, [champion, *earlier] if champion else []))
    checks = (
        _data_quality(quality),
        _enough_samples(gate, rows),
        *(_same_samples(gate, name, next(iter(met.values()))) for name, met in pairs.items()),
        *(_judge(rule, gate, rows, pairs, candidate.metrics) for rule in gate.rules),
    )
    return GateReport(
        model=gate.model,
        version=candidate.version,
        champion=champion.version if champion else None,
        split=gate.split,
        origin=candidate.origin,
        samples=len(rows),
        users=int(rows["user_id"].nunique()),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        checks=checks,
    )


def _opponents(
    gate: Gate, rows: pd.DataFrame, candidate: Candidate, champions: Sequence[Candidate]
) -> Iterator[tuple[str, Mapping[str, Pairs]]]:
    for name in dict.fromkeys(rule.against for rule in gate.rules if rule.against):
        if name != CHAMPION:
            yield name, {name: pair(rows, of_model(candidate.ranks, name, gate.split))}
        elif champions:
            ours = gate.evaluated_as
            met = {one.version: pair(rows, of_model(one.ranks, ours, gate.split)) for one in champions}
            yield name, {v: found for v, found in met.items() if _comparable(gate, found) or v == champions[0].version}


def _comparable(gate: Gate, pairs: Pairs) -> bool:
    return pairs.shared >= gate.minimum_shared


def _data_quality(quality: DataQuality) -> Check:
    if quality.problems:
        return Check("data quality", False, "; ".join(quality.problems))
    return Check("data quality", True, f"{quality.partitions} input partitions add up, and no rule failed to run")


def _enough_samples(gate: Gate, rows: pd.DataFrame) -> Check:
    enough = len(rows) >= gate.minimum_samples
    reason = "enough to judge" if enough else "too few samples to judge by"
    return Check("samples", enough, reason, float(len(rows)), float(gate.minimum_samples))


def _same_samples(gate: Gate, name: str, pairs: Pairs) -> Check:
    counts = f"{len(pairs.frame)} shared, {pairs.only_a} only in this version, {pairs.only_b} only in {name}"
    return Check(f"same samples as {name}", _comparable(gate, pairs), counts, pairs.shared, gate.minimum_shared)


def _judge(rule: Rule, gate: Gate, rows: pd.DataFrame, pairs: Opponents, metrics: Mapping[str, float]) -> Check:
    if rule.against is not None:
        return _judge_gains(rule, gate, pairs.get(rule.against, {}))
    if not is_rank_metric(rule.metric):
        return _judge_number(rule, metrics)
    part = in_slice(rows, rule.slice)
    if part.empty:
        return Check(rule.name, False, f"no sample is in the slice {rule.slice!r}", None, rule.limit)
    found = level(rule.metric, part, gate.bootstrap)
    return _against_limit(rule, found.value, f"{_brackets(found)}, {len(part)} samples")


def _judge_number(rule: Rule, metrics: Mapping[str, float]) -> Check:
    if rule.metric not in metrics:
        return Check(rule.name, False, "the run has no such metric", None, rule.limit)
    return _against_limit(rule, metrics[rule.metric], "as the run reports it")


def _against_limit(rule: Rule, value: float, reason: str) -> Check:
    assert rule.limit is not None
    return Check(rule.name, _reaches(rule, value, rule.limit), reason, value, rule.limit)


def _judge_gains(rule: Rule, gate: Gate, met: Mapping[str, Pairs]) -> Check:
    """Of several champions the one that is hardest to meet decides."""
    if not met:
        return Check(rule.name, True, "no other champion: limits and baselines decide", None, rule.margin)
    checks = [_judge_gain(rule, gate, name, pairs) for name, pairs in met.items()]
    return min(checks, key=lambda check: (check.passed, _room(rule, check)))


def _judge_gain(rule: Rule, gate: Gate, name: str, pairs: Pairs) -> Check:
    """The threshold is on the worse end of the interval: the mean alone would promote luck."""
    frame = in_slice(pairs.frame, rule.slice)
    if frame.empty:
        return Check(rule.name, False, "no shared samples to compare", None, rule.margin)
    gain = difference(rule.metric, Pairs(frame, 0, 0), gate.bootstrap)
    worse = gain.lo if rule.direction == "higher" else gain.hi
    opponent = f"version {name}" if rule.against == CHAMPION else name
    reason = f"difference to {opponent} {gain.value:+.4f} {_brackets(gain)}; its worse end counts"
    threshold = _margin(rule, gate, frame)
    return Check(rule.name, _reaches(rule, worse, threshold), reason, worse, threshold)


def _margin(rule: Rule, gate: Gate, frame: pd.DataFrame) -> float:
    if rule.margin is not None:
        return rule.margin
    assert rule.share is not None
    return rule.share * level(rule.metric, frame.rename(columns={"rank_b": "rank"}), gate.bootstrap).value


def _room(rule: Rule, check: Check) -> float:
    if check.value is None or check.threshold is None:
        return 0.0
    return (check.value - check.threshold) * (1.0 if rule.direction == "higher" else -1.0)


def _reaches(rule: Rule, value: float, threshold: float) -> bool:
    return value >= threshold if rule.direction == "higher" else value <= threshold


def _brackets(interval: Interval) -> str:
    return f"[{interval.lo:.4f}, {interval.hi:.4f}]"
