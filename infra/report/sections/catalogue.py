"""What the newest catalogue says of its items, by source."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Catalogue"


def read(sources: Sources) -> dict[str, Any]:
    """One line per source."""
    return {"sources": catalogue(sources.marts), "data": sources.contracts["items"].origin}


def catalogue(marts: Marts) -> list[dict[str, Any]]:
    """The newest catalogue by source, the largest first: its items, and how many of them lack what describes an item.

    `acted_on`: items with an event.
    """
    return marts.rows(
        """select source, max(snapshot_date) delivered, count(*) as "items",
                  count(*) filter (where coalesce(trim(title), '') = '') without_title,
                  count(*) filter (where coalesce(trim(brand), '') = '') without_brand,
                  count(*) filter (where coalesce(trim(category), '') = '') without_category,
                  count(*) filter (where n_events > 0) acted_on
           from dim_items group by source order by "items" desc, source"""
    )
