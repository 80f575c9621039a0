"""What the gates of single stages decided: `gate.json` of each logged stage that held one, or that was left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from registry.runs import tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

GATE_FILE = "gate.json"


@dataclass(frozen=True)
class StageGate:
    """One stage's verdict. One that is not `accepted` has handed on what it started from, or nothing, for a `reason`.

    Where it was measured: `metric` of the model as it started (`before`), as the stage left it (`after`), and of the
    model at the start of its chain of stages (`start`); `lower`: the lower bound of after minus before. `note`: what
    else the stage says of itself.
    """

    run_id: str
    system: str
    run: str
    stage: str
    finished_at: datetime
    accepted: bool
    reason: str
    note: str
    metric: str | None
    start: float | None
    before: float | None
    after: float | None
    lower: float | None
    origin: str


def stage_gates(client: MlflowClient, runs: Iterable[Run]) -> Iterator[StageGate]:
    """Those of `runs` that left a `gate.json`, in their order."""
    for run in runs:
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        if GATE_FILE in names:
            with TemporaryDirectory() as scratch:
                file = Path(client.download_artifacts(run.info.run_id, GATE_FILE, scratch))
                record = json.loads(file.read_text())
            tags = run.data.tags
            yield StageGate(
                run.info.run_id,
                tags[tag("system")],
                Path(tags[tag("out")]).parent.name,
                tags[tag("stage")],
                datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC),
                bool(record["accepted"] if "accepted" in record else record["stands"]),  # its name until 2026-11-26
                record["reason"],
                record.get("note", ""),
                record.get("metric"),
                record.get("start"),
                record.get("before"),
                record.get("after"),
                record.get("lower"),
                tags[tag("origin")],
            )
