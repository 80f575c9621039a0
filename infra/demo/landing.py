"""Which days the landed events cover: the range that the demo asks the pipeline for, and where it cuts the split."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from infra.profile import CHECKOUT


@dataclass(frozen=True)
class LandedDays:
    """First and last day with an event, and where validation and test begin (`spark_jobs.landing.days`)."""

    first: date
    last: date
    valid_from: date
    test_from: date


def landed_days(landing: Path) -> LandedDays:
    """The days of the landed events as the ingest reads them, asked of its own reader.

    Raises:
        SystemExit: the reader refused the folder; it has said why, and its exit code is kept.
    """
    asked = [sys.executable, "-m", "spark_jobs.landing.days", str(landing)]
    answer = subprocess.run(asked, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        sys.exit(answer.returncode)
    return LandedDays(**{name: date.fromisoformat(day) for name, day in json.loads(answer.stdout).items()})
