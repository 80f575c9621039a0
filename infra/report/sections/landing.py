"""How long the scheduler's tasks waited and worked."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from infra.report import charts
from infra.report.marts import Marts, Sources

TITLE = "Landing times"


def read(sources: Sources) -> dict[str, Any]:
    """The chart of the newest chain of runs."""
    tasks = task_landing(sources.marts)
    return {"chart": Markup(charts.landing(tasks)) if tasks else ""}  # noqa: S704  (our own SVG)


def task_landing(marts: Marts) -> list[dict[str, Any]]:
    """The tries of the six hours before the newest one (a day's chain of runs), at most 100, in order of start."""
    return marts.rows(
        """select * from (select * from fct_task_landing
                          where started_at > (select max(started_at) from fct_task_landing) - interval 6 hours
                          order by started_at desc limit 100) order by started_at"""
    )
