"""What each version's lists would do in the simulated market."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Sources

TITLE = "Market, simulated"


def read(sources: Sources) -> dict[str, Any]:
    """The figures of the newest night that was played, the champion's before the challenger's."""
    played = sources.marts.rows(
        """select * from fct_market_replay
           where run_date = (select max(run_date) from fct_market_replay)
           order by against is not null, model_version,
               list_position(['clicks', 'purchases', 'revenue', 'bids', 'satisfaction', 'leavers'], metric)"""
    )
    return {"played": played}
