"""Some users' lists in words: what they did, what they are recommended, and why."""

from __future__ import annotations

import math
from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Lists, user by user"
_USERS = 8  # of each kind
_PLACES = 10
_EVENTS = 10


def read(sources: Sources) -> dict[str, Any]:
    """Users with short, middling and long histories, each with the newest events and the first places of the list."""
    return {"users": users(sources.marts), "data": sources.contracts["recommendations"].origin}


def users(marts: Marts) -> list[dict[str, Any]]:
    """Eight users of each kind, the same ones for the same lists: `kind`, `user_id`, `events`, `history`, `items`.

    The lists are the champion's, or the baseline's where there is no champion.
    """
    lists = marts.rows(
        """with lists as (select * from fct_recommended_items where role <> 'challenger'),
                events as (
                    select e.user_id, count(*) as n from stg_events e
                    where e.event_date <= (select max(run_date) from lists) group by e.user_id),
                asked as (
                    select distinct l.user_id, coalesce(events.n, 0) as n,
                           case when coalesce(events.n, 0) <= 2 then 'one or two events'
                                when events.n < 10 then 'three to nine events' else 'ten events and more' end as kind
                    from lists l left join events using (user_id)),
                drawn as (
                    select * from asked
                    qualify row_number() over (partition by kind order by md5(user_id)) <= ?)
            select drawn.kind, drawn.n as events, lists.* from lists inner join drawn using (user_id)
            where lists.rank <= ?
            order by min(drawn.n) over (partition by drawn.kind), lists.user_id, lists.rank""",
        [_USERS, _PLACES],
    )
    found: dict[str, dict[str, Any]] = {}
    for row in lists:
        told = {key: row[key] for key in ("kind", "events", "user_id", "run_date", "model_version", "role")}
        user = found.setdefault(row["user_id"], {**told, "items": [], "history": []})
        reasons = list(zip(row["reasons"] or [], row["reason_scores"] or [], strict=True))
        # Only a ranker's probability is calibrated, and only a ranker has reasons.
        user["items"].append({**row, "reasons": reasons, "chance": math.exp(row["log_prob"]) if reasons else None})
    for event in _events(marts, list(found)):
        found[event["user_id"]]["history"].append(event)
    return list(found.values())


def _events(marts: Marts, asked: list[str]) -> list[dict[str, Any]]:
    """Their newest events up to the day of the lists, newest first, with titles."""
    return marts.rows(
        """select e.user_id, e.event_date, e.item_id, i.title
            from stg_events e left join dim_items i using (item_id)
            where list_contains(?, e.user_id) and e.event_date <= (select max(run_date) from fct_recommended_items)
            qualify row_number() over (partition by e.user_id order by e.event_date desc, e.item_id) <= ?
            order by e.user_id, e.event_date desc, e.item_id""",
        [asked, _EVENTS],
    )
