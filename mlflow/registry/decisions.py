"""What a person (or the approval step) does with a model's versions: gate, promote, reject, roll back, compare.

Every function first repairs the aliases from the ledger, and leaves them as the ledger says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.bootstrap import Interval
from infra.errors import DataError
from infra.ledger import Ledger
from infra.profile import Profile
from registry.aliases import GATE_TAG, gate_report, newest_undecided, require_champion, sync_aliases, versions
from registry.data_quality import check_data
from registry.evaluation_artifacts import EVALUATION, candidate, snapshots_of
from registry.gate_file import Gate, load_gate
from registry.gate_report import Check, GateReport
from registry.gates import Candidate, evaluate
from registry.judge import by_judge
from registry.market import in_market
from registry.promotions import Decision, Promotions, line_of_champions
from registry.runs import tag
from registry.store import connect
from registry.values import difference, level, measure, measures, pair

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Comparison:
    """One metric of champion and challenger on the samples submitted to both, and the paired gain of the challenger.

    `scored`: how many of the samples both have scored. A champion of before the metric was measured has none of it, and
    the challenger stands alone.
    """

    metric: str
    champion: Interval | None
    challenger: Interval
    gain: Interval | None
    samples: int
    scored: int
    unit: str
    origin: str


def hold_gate(profile: Profile, model: str, version: str | None = None) -> GateReport:
    """Hold the gate of a version (default: the newest undecided) against the champion, and attach the report to it.

    Raises:
        DataError: there is no such version, or its evaluation does not have what the gate asks about.
    """
    gate = load_gate(model)
    client, ledger = _open(profile, model)
    chosen = _chosen(client, ledger, model, version)
    champion = ledger.champion(model)
    if champion:
        require_champion(client, model, champion)
    quality = check_data(Ledger(profile), snapshots_of(client, model, chosen))
    present = candidate(client, model, champion) if champion and champion != chosen else None
    known = {str(found.version) for found in versions(client, model)}
    line = line_of_champions(ledger.history(model))
    # The champions before the present one that MLflow still has, the newest first.
    before = [one for one in dict.fromkeys(line[-2::-1]) if one in known and one not in (line[-1], chosen)]
    earlier = [candidate(client, model, one) for one in before]
    report = evaluate(gate, candidate(client, model, chosen), present, quality, earlier)
    report = report.with_lists(_of_lists(profile, gate, chosen, champion))
    _attach(client, report)
    sync_aliases(client, ledger, model)
    return report


def promote(
    profile: Profile, model: str, version: str | None = None, *, who: str, override: bool = False, reason: str = ""
) -> Decision:
    """Make a version champion: the ledger row first, then the aliases.

    The champion promoted again is a retry after a kill: nothing is added, and the decision that stands is returned.
    The rules of market and judge are held anew: a version has lists only once it is challenger.

    Raises:
        GateNotPassed: no passed gate against the present champion, and no override with a reason.
        StaleDecision: another decision came first.
    """
    client, ledger = _open(profile, model)
    champion = ledger.champion(model)
    chosen = _chosen(client, ledger, model, version)
    last = _last_about(ledger, model, chosen)
    if last is not None and champion == chosen:
        return last
    report = _report(profile, client, model, chosen, champion)
    decision = ledger.promote(
        model, chosen, champion=champion, who=who, report=report, override=override, reason=reason
    )
    sync_aliases(client, ledger, model)
    return decision


def reject(profile: Profile, model: str, version: str | None = None, *, who: str, reason: str) -> Decision:
    """Record that a version will not be champion; once is enough."""
    client, ledger = _open(profile, model)
    chosen = _chosen(client, ledger, model, version)
    last = _last_about(ledger, model, chosen)
    if last is not None and last.decision == "reject":
        return last
    report = _report(profile, client, model, chosen, ledger.champion(model))
    decision = ledger.reject(model, chosen, who=who, reason=reason, report=report)
    sync_aliases(client, ledger, model)
    return decision


def rollback(profile: Profile, model: str, *, who: str, reason: str) -> Decision:
    """Make the champion before the present one champion again."""
    client, ledger = _open(profile, model)
    decision = ledger.rollback(model, who=who, reason=reason)
    sync_aliases(client, ledger, model)
    return decision


def compare(profile: Profile, model: str, version: str | None = None) -> list[Comparison]:
    """A version (default: the newest undecided) beside the champion, metric by metric.

    Raises:
        DataError: there is no champion, or the two share no sample.
    """
    gate = load_gate(model)
    client, ledger = _open(profile, model)
    champion = ledger.champion(model)
    if champion is None:
        raise DataError(f"Model {model!r} has no champion to compare with.", do="See: python -m registry gate")
    require_champion(client, model, champion)
    chosen = _chosen(client, ledger, model, version)
    sides = candidate(client, model, chosen), candidate(client, model, champion)
    found = [_compared(gate, metric, *sides) for metric in gate.compared]
    if all(one.gain is None for one in found):
        raise DataError(
            f"Version {champion} of {model!r}, the champion, was measured by nothing that version {chosen} was.",
            why=f"The gate asks for {', '.join(gate.compared)}.",
            do="Register a version of today beside it: python -m registry gate says what it lacks.",
        )
    return found


def _compared(gate: Gate, metric: str, ours: Candidate, champion: Candidate) -> Comparison:
    formula, asked = gate.metrics[metric], gate.evaluated_as
    own = measure(ours.values, asked, gate.split, formula)
    origin = ", ".join(sorted({ours.origin, champion.origin}))
    if not measures(champion.values, asked, gate.split, formula):
        alone = level(own, gate.bootstrap)
        return Comparison(metric, None, alone, None, len(own), int(own.scored.sum()), gate.unit, origin)
    pairs = pair(own, measure(champion.values, asked, gate.split, formula))
    if not len(pairs.a):
        raise DataError(
            f"Versions {ours.version} and {champion.version} of {gate.model!r} were evaluated on different samples."
        )
    return Comparison(
        metric,
        champion=level(pairs.b, gate.bootstrap),
        challenger=level(pairs.a, gate.bootstrap),
        gain=difference(pairs, gate.bootstrap),
        samples=len(pairs.a),
        scored=int((pairs.a.scored & pairs.b.scored).sum()),
        unit=gate.unit,
        origin=origin,
    )


def _open(profile: Profile, model: str) -> tuple[MlflowClient, Promotions]:
    client, ledger = connect(profile), Promotions(profile)
    versions(client, model)
    sync_aliases(client, ledger, model)
    return client, ledger


def _chosen(client: MlflowClient, ledger: Promotions, model: str, version: str | None) -> str:
    known = [str(found.version) for found in versions(client, model)]
    chosen = version or newest_undecided(client, ledger, model)
    if chosen is None:
        raise DataError(f"Every version of {model!r} has been decided on.", do="Name one: --version N")
    if chosen not in known:
        raise DataError(f"Model {model!r} has no version {chosen}.", do=f"Choose one of: {', '.join(known)}.")
    return chosen


def _report(
    profile: Profile, client: MlflowClient, model: str, version: str, champion: str | None
) -> GateReport | None:
    """What is attached to a version; where market or judge were asked, with what they say by now."""
    report = gate_report(client, model, version)
    if report is None or not any(check.of_lists for check in report.checks):
        return report
    return report.with_lists(_of_lists(profile, load_gate(model), version, champion))


def _of_lists(profile: Profile, gate: Gate, version: str, champion: str | None) -> list[Check]:
    """What market and judge say by now of the lists of a version beside the champion's."""
    return [*in_market(profile, gate, version, champion), *by_judge(profile, gate, version, champion)]


def _last_about(ledger: Promotions, model: str, version: str) -> Decision | None:
    about = [decision for decision in ledger.history(model) if decision.to_version == version]
    return about[-1] if about else None


def _attach(client: MlflowClient, report: GateReport) -> None:
    client.set_model_version_tag(report.model, report.version, GATE_TAG, report.to_json())
    client.set_model_version_tag(report.model, report.version, tag("gate"), "passed" if report.passed else "failed")
    run_id = client.get_model_version(report.model, report.version).run_id
    client.log_text(run_id, report.to_json(), f"{EVALUATION}/gate_report.json")
    client.log_text(run_id, report.to_markdown(), f"{EVALUATION}/gate_report.md")
