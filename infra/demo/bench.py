"""Times of the demo itself: a first run from nothing but the environment, and later ones that reuse it all."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from infra import processes


def bench_demo() -> dict[str, Any]:
    """Seconds of a first demo (`ours`), of a second one, and of each task of the first."""
    with tempfile.TemporaryDirectory() as home:
        first, second = _run(Path(home)), _run(Path(home))
    tasks = {f"{task['dag']}.{task['task']}": task["seconds"] for task in first["tasks"]}
    return {"ours": first["seconds"], "second": second["seconds"], "unit": "s", "runs": 1, "tasks": tasks}


def bench_stage_start() -> dict[str, Any]:
    """Seconds of a training stage that has nothing to do, from the queue to its end: forked warm, and (`peer`) cold.

    The median over the stages of a demo that finds everything done. Bar: 6 s.
    """
    with tempfile.TemporaryDirectory() as home:
        _run(Path(home))
        starts = []
        for answer in ("true", "false"):
            tasks = _run(Path(home), warm_starts=answer)["tasks"]
            stages = [task for task in tasks if task["dag"].startswith("align_") and task["task"] != "register"]
            starts.append([task["waited"] + task["seconds"] for task in stages])
    warm, cold = starts
    ours, peer = statistics.median(warm), statistics.median(cold)
    return {"ours": ours, "peer": peer, "unit": "s", "runs": 1, "most": max(warm), "stages": len(warm)}


def _run(home: Path, warm_starts: str = "true") -> dict[str, Any]:
    environment = {**os.environ, "PLUMBLINE__HOME": str(home), "PLUMBLINE__AIRFLOW__WARM_STARTS": warm_starts}
    subprocess.run(processes.python("infra.demo"), env=environment, check=True)
    summary: dict[str, Any] = json.loads((home / "demo" / "summary.json").read_text())
    return summary
