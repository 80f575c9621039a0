"""The gate: does a version deserve to be champion? A pure function of its gate file, its values and its run's metrics.

A rule against the champion or a row of the evaluation is held on the SAME samples of the SAME units, by the paired
bootstrap by unit; samples that only one side has are counted and limited. The first version of a model has no champion
to meet: its limits and its baselines decide.

A rule against the champion holds against earlier ones too, where they were measured on the same samples: a loss that is
put up with at each promotion would add up from champion to champion.

The denominator is what was submitted. A sample that the model did not score stays in it, and the share of those that it
did score has a limit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pandas as pd

from common.bootstrap import Interval
from common.formulas import Formula
from registry.gate_file import BEST_BASELINE, CHAMPION, Gate, JudgeRule, MarketRule, Rule
from registry.gate_report import Check, GateReport
from registry.values import Measured, Pairs, difference, level, measure, measures, pair


@dataclass(frozen=True)
class DataQuality:
    """What the ledger says of the data behind a version; `problems` is empty where it is green."""

    problems: tuple[str, ...]
    partitions: int


@dataclass(frozen=True)
class Candidate:
    """A version as the gate sees it: its evaluation's values (all rows), its run's metrics, its data's origin."""

    version: str
    values: pd.DataFrame
    metrics: Mapping[str, float]
    origin: str


@dataclass(frozen=True)
class _Held:
    """A gate and what it is held against a version with."""

    gate: Gate
    candidate: Candidate
    champions: Sequence[Candidate]

    def ours(self, formula: Formula, of: Candidate | None = None, row: str | None = None) -> Measured:
        """The model itself, of this version or of another; `row`: as another row of its evaluation."""
        return measure((of or self.candidate).values, row or self.gate.evaluated_as, self.gate.split, formula)

    def met(self, rule: Rule) -> dict[str, Pairs]:
        """Who the rule is `against`, by name, on the samples of both: several champions, or one row, or nobody."""
        formula = self.gate.metrics[rule.metric]
        ours, asked = self.ours(formula, row=rule.of), rule.of or self.gate.evaluated_as
        if rule.against != CHAMPION:
            return {name: pair(ours, row) for name, row in self._row(rule, formula).items()}
        found = dict[str, Pairs]()
        for one in self.champions:
            if measures(one.values, asked, self.gate.split, formula):
                pairs = pair(ours, self.ours(formula, one, asked))
                found |= {one.version: pairs} if one is self.champions[0] or self.comparable(pairs) else {}
        return found

    def _row(self, rule: Rule, formula: Formula) -> dict[str, Measured]:
        """The row of the evaluation that a rule names; of the baselines the best in the rule's own slice."""
        assert rule.against is not None
        names = self.baselines(formula) if rule.against == BEST_BASELINE else (rule.against,)
        rows = {name: measure(self.candidate.values, name, self.gate.split, formula) for name in names}
        sign = 1.0 if rule.direction == "higher" else -1.0
        best = max(rows, key=lambda name: sign * rows[name].within(rule.slice).value)
        return {best: rows[best]}

    def baselines(self, formula: Formula) -> tuple[str, ...]:
        """Those that were measured: a shop has no row of what its data is too little for. All, where none was."""
        values, gate = self.candidate.values, self.gate
        return tuple(name for name in gate.baselines if measures(values, name, gate.split, formula)) or gate.baselines

    def comparable(self, pairs: Pairs) -> bool:
        """Whether two models were measured on samples that are nearly the same."""
        return pairs.shared >= self.gate.minimum_shared


def evaluate(
    gate: Gate,
    candidate: Candidate,
    champion: Candidate | None,
    quality: DataQuality,
    earlier: Sequence[Candidate] = (),
) -> GateReport:
    """Hold `gate` against a version; `earlier` were champions before. Without a champion the rules against it pass.

    Raises:
        DataError: the values hold no rows of the model, or of a row of the evaluation that a rule names.
    """
    held = _Held(gate, candidate, [champion, *earlier] if champion else [])
    whole = held.ours(gate.metrics[gate.headline])
    met = {rule: held.met(rule) for rule in gate.rules if rule.against is not None}
    first = dict[str, Pairs]()
    for rule, found in met.items():
        for pairs in found.values():
            first.setdefault(str(rule.against), pairs)
    checks = (
        _data_quality(quality),
        _enough_samples(gate, whole),
        _enough_scored(gate, held),
        *(_same_samples(held, name, pairs) for name, pairs in first.items()),
        *(_check(rule, held, met.get(rule)) for rule in gate.rules),
    )
    return GateReport(
        model=gate.model,
        version=candidate.version,
        champion=champion.version if champion else None,
        split=gate.split,
        origin=candidate.origin,
        samples=len(whole),
        scored=int(whole.scored.sum()),
        unit=gate.unit,
        units=whole.units,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        checks=checks,
    )


def told(gate: Gate, candidate: Candidate) -> list[Check]:
    """The rules that are told and stop nothing, on the version's own evaluation: no champion is met."""
    held = _Held(gate, candidate, [])
    return [_check(rule, held, held.met(rule)) for rule in gate.rules if rule.otherwise]


def _check(rule: Rule, held: _Held, met: Mapping[str, Pairs] | None) -> Check:
    check = _limit_check(rule, held) if met is None else _gain_check(rule, held, met)
    return check if check.passed or not rule.otherwise else replace(check, passed=True, otherwise=rule.otherwise)


def _data_quality(quality: DataQuality) -> Check:
    if quality.problems:
        return Check("data quality", False, "; ".join(quality.problems))
    return Check("data quality", True, f"{quality.partitions} input partitions add up, and no rule failed to run")


def _enough_samples(gate: Gate, whole: Measured) -> Check:
    enough = len(whole) >= gate.minimum_samples
    reason = "enough to decide" if enough else "too few samples to decide by"
    return Check("samples", enough, reason, float(len(whole)), float(gate.minimum_samples))


def _enough_scored(gate: Gate, held: _Held) -> Check:
    """The metric with the most failures decides: a model may not leave out what it is bad at."""
    asked = dict.fromkeys([gate.headline, *(rule.metric for rule in gate.rules if rule.metric in gate.metrics)])
    rows = {rule.of for rule in gate.rules if rule.of} | {None}
    found = {(name, row): held.ours(gate.metrics[name], row=row) for name in asked for row in rows}
    (name, _), worst = min(found.items(), key=lambda one: one[1].scored.mean())
    scored = int(worst.scored.sum())
    reason = f"{len(worst)} submitted, {scored} scored, {len(worst) - scored} failed; those stay in {name}"
    share = float(worst.scored.mean())
    return Check("scored samples", share >= gate.minimum_scored, reason, share, gate.minimum_scored)


def _same_samples(held: _Held, name: str, pairs: Pairs) -> Check:
    counts = f"{len(pairs.a)} shared, {pairs.only_a} only in this version, {pairs.only_b} only in {name}"
    return Check(f"same samples as {name}", held.comparable(pairs), counts, pairs.shared, held.gate.minimum_shared)


def _limit_check(rule: Rule, held: _Held) -> Check:
    assert rule.limit is not None
    formula = held.gate.metrics.get(rule.metric)
    if formula is None:
        value = held.candidate.metrics.get(rule.metric)
        if value is None:
            return Check(rule.name, False, "the run has no such metric", None, rule.limit)
        return Check(rule.name, _reaches(rule, value, rule.limit), "as the run reports it", value, rule.limit)
    part = held.ours(formula, row=rule.of).within(rule.slice)
    if not len(part):
        return Check(rule.name, False, f"no sample is in the slice {rule.slice!r}", None, rule.limit)
    found = level(part, held.gate.bootstrap)
    reason = f"{_brackets(found)}, {len(part)} samples"
    return Check(rule.name, _reaches(rule, found.value, rule.limit), reason, found.value, rule.limit)


def _gain_check(rule: Rule, held: _Held, met: Mapping[str, Pairs]) -> Check:
    """Of several champions the one that is hardest to meet decides."""
    present = held.champions[0].version if held.champions and rule.against == CHAMPION else None
    if present and present not in met:
        names = ", ".join(held.gate.metrics[rule.metric].needs)
        reason = (
            f"the evaluation of version {present} left no {names}, so there is nothing to compare with: "
            "train a champion anew, or promote past it with an override"
        )
        return Check(rule.name, False, reason, None, rule.margin)
    if not met:
        return Check(rule.name, True, "no other champion: limits and baselines decide", None, rule.margin)
    checks = [_gain_over(rule, held, name, pairs.within(rule.slice)) for name, pairs in met.items()]
    return min(checks, key=lambda check: (check.passed, _room(rule, check)))


def _gain_over(rule: Rule, held: _Held, name: str, pairs: Pairs) -> Check:
    if not len(pairs.a):
        return Check(rule.name, False, "no shared samples to compare", None, rule.margin)
    measured = ", ".join(held.baselines(held.gate.metrics[rule.metric]))
    others = f" (the best of {measured})" if rule.against == BEST_BASELINE else ""
    opponent = f"version {name}" if rule.against == CHAMPION else f"{name}{others}"
    return held_to(rule, difference(pairs, held.gate.bootstrap), pairs.b.value, opponent)


def held_to(rule: Rule | MarketRule | JudgeRule, gain: Interval, theirs: float, opponent: str) -> Check:
    """A gain over an `opponent`, whose own value is `theirs`.

    The threshold is on the worse end of the interval, as a gain in the mean may be luck, unless a rule says else.
    """
    worse = gain.lo if rule.direction == "higher" else gain.hi
    counts, held = ("it", gain.value) if rule.counts == "mean" else ("its worse end", worse)
    reason = f"difference to {opponent} {gain.value:+.4f} {_brackets(gain)}; {counts} counts"
    threshold = rule.margin if rule.margin is not None else (rule.share or 0.0) * theirs
    return Check(rule.name, _reaches(rule, held, threshold), reason, held, threshold)


def _room(rule: Rule, check: Check) -> float:
    if check.value is None or check.threshold is None:
        return 0.0
    return (check.value - check.threshold) * (1.0 if rule.direction == "higher" else -1.0)


def _reaches(rule: Rule | MarketRule | JudgeRule, value: float, threshold: float) -> bool:
    return value >= threshold if rule.direction == "higher" else value <= threshold


def _brackets(interval: Interval) -> str:
    return f"[{interval.lo:.4f}, {interval.hi:.4f}]"
