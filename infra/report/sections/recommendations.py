"""What each version recommends to the users active of late."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Nightly recommendations"


def read(sources: Sources) -> dict[str, Any]:
    """One line per day and version."""
    origin = sources.contracts["recommendations"].origin
    return {"nights": recommendations(sources.marts), "data": origin}


def recommendations(marts: Marts) -> list[dict[str, Any]]:
    """The lists of the last 14 days that have any, newest first, the champion's before the challenger's.

    `days_behind`: how much newer the newest day of events is.
    """
    return marts.rows(
        """with newest as (
               select max(partition_date) as day from fct_partition_quality where asset = 'events' and rows_out > 0)
           select r.*, greatest(newest.day - r.run_date, 0) as days_behind
           from fct_recommendations r cross join newest
           qualify dense_rank() over (order by r.run_date desc) <= 14
           order by r.run_date desc, r.role desc"""
    )
