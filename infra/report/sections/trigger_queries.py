"""The nightly index of queries: how much of what people do it knows, how old it is, and how much of it is new."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Sources

TITLE = "Queries before search"


def read(sources: Sources) -> dict[str, Any] | None:
    """The indexes of the last 14 nights, newest first; None where there was never one."""
    nights = sources.marts.rows("select * from fct_trigger_index order by index_date desc limit 14")
    return {"nights": nights, "data": sources.contracts["trigger_queries"].origin} if nights else None
