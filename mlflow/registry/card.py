"""The model card: what the version was made from, how good it is and by how much that is uncertain, what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from common.bootstrap import Interval
from infra.lake import DataFile, Lake
from infra.profile import Profile
from registry.aliases import require_champion
from registry.evaluation_artifacts import candidate, snapshots_of
from registry.gate_file import Gate
from registry.gates import Candidate, told
from registry.promotions import Promotions
from registry.runs import lineage, tag
from registry.stage_gates import stage_gates
from registry.values import difference, level, measure, measures, models_of, pair

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_CAVEAT = "The intervals say how much the choice of test samples matters, not how much another training seed would."


def write(profile: Profile, client: MlflowClient, gate: Gate, version: str) -> str:
    """The card of a registered version as markdown, beside the champion of this moment."""
    champion = Promotions(profile).champion(gate.model)
    if champion:
        require_champion(client, gate.model, champion)
    runs = lineage(client, client.get_model_version(gate.model, version).run_id)
    other = champion if champion != version else None
    new = candidate(client, gate.model, version)
    sections = (
        _head(client, gate, new, other),
        _data(Lake(profile), client, gate.model, version, other),
        _metrics(gate, new, candidate(client, gate.model, other) if other else None),
        what_is_told(gate, new),
        _gates(client, runs),
        _cost(runs),
        "## Limits\n\n" + "\n".join(f"* {caveat}" for caveat in (*gate.caveats, _CAVEAT)),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def show(interval: Interval) -> str:
    """`0.1234 [0.1200, 0.1300]`."""
    return f"{interval.value:.4f} [{interval.lo:.4f}, {interval.hi:.4f}]"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _head(client: MlflowClient, gate: Gate, new: Candidate, champion: str | None) -> str:
    run = client.get_run(client.get_model_version(gate.model, new.version).run_id)
    facts = [f"{name}: `{run.data.tags[tag(name)]}`" for name in ("system", "stage", "seed", "code_commit")]
    against = f"champion: version {champion}" if champion else "champion: none yet"
    title = f"# {gate.model} version {new.version} ({new.origin} data)"
    return f"{title}\n\nrun: `{run.info.run_id}`, {', '.join(facts)}, {against}."


def _data(lake: Lake, client: MlflowClient, model: str, version: str, champion: str | None) -> str:
    """Rows, partitions and files of each snapshot, and what differs from the champion's snapshot of the same table."""
    theirs = snapshots_of(client, model, champion) if champion else {}
    rows = []
    for name, ids in sorted(snapshots_of(client, model, version).items()):
        files = lake.files(name, snapshot=ids[-1])
        cells = [name, ids[-1], sum(f.rows for f in files), len({f.partition for f in files}), len(files)]
        rows.append([*cells, _change(files, lake.files(name, snapshot=theirs[name][-1])) if name in theirs else ""])
    header = ("table", "snapshot", "rows", "partitions", "files", "against the champion's")
    return "## Data\n\n" + (table(header, rows) if rows else "No snapshot of the lake is noted.")


def _change(ours: list[DataFile], theirs: list[DataFile]) -> str:
    new, old = {f.path: f for f in ours}, {f.path: f for f in theirs}
    if new.keys() == old.keys():
        return "the same files"
    added, gone = new.keys() - old.keys(), old.keys() - new.keys()
    days = {new[path].partition for path in added} | {old[path].partition for path in gone}
    rows = sum(f.rows for f in ours) - sum(f.rows for f in theirs)
    return f"{rows:+d} rows; {len(days)} partitions differ; {len(added)} files new, {len(gone)} gone"


def _metrics(gate: Gate, new: Candidate, champion: Candidate | None) -> str:
    """Every row of the evaluation under the gate's metrics, and the gain over the champion on the samples of both."""
    names = models_of(new.values, gate.split)
    names.sort(key=lambda name: (name != gate.evaluated_as, name))
    rows = [[f"**{name}**" if name == gate.evaluated_as else name, *_levels(gate, new, name)] for name in names]
    if champion is not None:
        rows.append([f"champion {champion.version}", *_levels(gate, champion, gate.evaluated_as)])
        rows.append(["gain over the champion, paired", *_gains(gate, new, champion)])
    intervals = f"{gate.bootstrap.confidence:.0%} intervals by {gate.unit}"
    title = f"## Metrics ({new.origin} data, split `{gate.split}`, {intervals})"
    return f"{title}\n\n" + table(("", *gate.compared, "samples", "scored", "failed"), rows)


def _levels(gate: Gate, of: Candidate, name: str) -> list[str]:
    """The metrics of one row, and the samples submitted to it under the headline, scored and failed."""
    found = {
        metric: measure(of.values, name, gate.split, gate.metrics[metric])
        for metric in gate.compared
        if measures(of.values, name, gate.split, gate.metrics[metric])
    }
    cells = [show(level(found[metric], gate.bootstrap)) if metric in found else "" for metric in gate.compared]
    if gate.headline not in found:
        return [*cells, "", "", ""]
    samples, scored = len(found[gate.headline]), int(found[gate.headline].scored.sum())
    return [*cells, str(samples), str(scored), str(samples - scored)]


def _gains(gate: Gate, new: Candidate, champion: Candidate) -> list[str]:
    cells, shared = list[str](), ""
    for metric in gate.compared:
        formula, cell = gate.metrics[metric], ""
        if measures(champion.values, gate.evaluated_as, gate.split, formula):
            pairs = pair(*(measure(one.values, gate.evaluated_as, gate.split, formula) for one in (new, champion)))
            cell = show(difference(pairs, gate.bootstrap)) if len(pairs.a) else ""
            shared = str(len(pairs.a)) if metric == gate.headline else shared
        cells.append(cell)
    return [*cells, shared, "", ""]


def what_is_told(gate: Gate, new: Candidate) -> str:
    """What a version need not show, and whether it has; empty where the gate tells nothing."""
    lines = [f"* {check.otherwise or 'shown'} ({check.name}: {check.reason})" for check in told(gate, new)]
    return "## Told, not held\n\n" + "\n".join(lines) if lines else ""


def _gates(client: MlflowClient, runs: Sequence[Run]) -> str:
    """What the stages' own gates decided; empty where no stage has one."""
    rows = [
        [one.stage, "accepted" if one.accepted else "left out", one.reason or one.note]
        for one in stage_gates(client, runs)
    ]
    text = "A stage that was left out has handed on the model that it started from."
    return f"## Gates of the stages\n\n{text}\n\n{table(('stage', 'outcome', 'why'), rows)}" if rows else ""


def _cost(runs: Sequence[Run]) -> str:
    """Seconds of each stage, and tokens where a stage counts them."""
    costs = [
        (run.data.tags[tag("stage")], run.data.metrics["seconds"], run.data.metrics.get("tokens", 0.0)) for run in runs
    ]
    costs.append(("all", sum(seconds for _, seconds, _ in costs), sum(tokens for _, _, tokens in costs)))
    rows = [[stage, f"{seconds:.1f}", f"{tokens:.0f}" if tokens else ""] for stage, seconds, tokens in costs]
    shown = 3 if costs[-1][2] else 2
    return "## Cost\n\n" + table(("stage", "seconds", "tokens")[:shown], [row[:shown] for row in rows])
