"""What every DAG keeps to: owners, tags, retry classes and pools. Closed lists; the policy tests read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from infra.airflow_env import DAILY_CHAIN, NEARLINE

OWNERS: Final = ("data-engineering", "ml-engineering", "analytics")
TAGS: Final = (
    "ingest", "samples", "features", "training", "registry", "report", "operations", "nightly", NEARLINE, DAILY_CHAIN,
)  # fmt: skip


@dataclass(frozen=True)
class Retry:
    """How often a task that failed with exit code 75 is tried again, and after what time."""

    retries: int
    delay: timedelta


# A preemption is not an error: it does not use up the small budget of a transient fault.
RETRIES: Final = {
    "transient": Retry(2, timedelta(seconds=15)),
    "preempted": Retry(10, timedelta(seconds=5)),
    "data": Retry(0, timedelta()),
    "bug": Retry(0, timedelta()),
}
