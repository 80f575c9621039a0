"""Times of the demo itself: a first run from nothing but the environment, and a second one that reuses it all."""

from __future__ import annotations

import json
import os
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


def _run(home: Path) -> dict[str, Any]:
    environment = {**os.environ, "PLUMBLINE__HOME": str(home)}
    subprocess.run(processes.python("infra.demo"), env=environment, check=True)
    summary: dict[str, Any] = json.loads((home / "demo" / "summary.json").read_text())
    return summary
