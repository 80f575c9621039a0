"""What each version's lists would do in the simulated market, and how like real logs that market is."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Market, simulated"
WORDS = {
    "popularity_exponent": "how steeply popularity falls from the first item on",
    "gini": "how unevenly takes are spread over items, 0 to 1",
    "top_percent_share": "share of takes on the most taken 1 % of items",
    "history_median": "takes of a user, median",
    "history_p90": "takes of a user, the longest tenth from here on",
    "history_p99": "takes of a user, the longest hundredth from here on",
    "repeat_share": "share of takes of something taken before",
    "gap_days_median": "days between two days with a take, median",
    "gap_days_p90": "days between two days with a take, the longest tenth from here on",
    "leavers": "share of users who take nothing in the last quarter",
    "top_neighbours_share": "share of co-visits with an item's ten nearest",
    "neighbour_lift": "how much likelier than by chance two co-visits of an item agree",
}


def read(sources: Sources) -> dict[str, Any]:
    """The newest night that was played, the champion before the challenger; and the newest card."""
    played = sources.marts.rows(
        """select * from fct_market_replay
           where run_date = (select max(run_date) from fct_market_replay)
           order by against is not null, model_version,
               list_position(
                   ['clicks', 'purchases', 'revenue', 'bids', 'ecpm', 'satisfaction', 'preference', 'leavers'],
                   metric)"""
    )
    return {"played": played, "card": card(sources.marts), "words": WORDS, "data": sources.contracts["events"].origin}


def card(marts: Marts) -> list[dict[str, Any]]:
    """The newest card, statistic by statistic; what lies outside first."""
    rows = marts.rows(
        "select * from fct_market_validity where run_date = (select max(run_date) from fct_market_validity)"
    )
    by = {row["statistic"]: row for row in rows}
    return sorted((by[name] for name in WORDS if name in by), key=lambda row: row["verdict"] != "outside")
