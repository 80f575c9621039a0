"""What the semantic judge says of each version's lists, whether it could be trusted, and the best and worst lists."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Judge"
WORDS = {
    "agreement": "share of held-out pairs in the order of their outcome",
    "beats_constant": "lower end of its interval, beside a judge that always says the same",
    "beats_coin_flip": "the same share, beside the best of forty judges that flip a coin",
    "repeats": "largest difference when the same cases are asked again among others",
    "swapped_order": "share of verdicts that turn with the order of a pair",
    "length_slope": "slope of scores over the length of titles, both standardised",
    "spread": "standard deviation of the night's scores",
    "most_frequent": "share of rows with one and the same score",
    "coverage": "scored of submitted rows",
}
"""Each check, in its order on the page."""
_ASPECTS = ("profile", "future", "novelty", "context", "score")


def read(sources: Sources) -> dict[str, Any]:
    """The newest night: its checks, a profile of each version by aspect, slices, and lists; and nights withheld."""
    marts = sources.marts
    checks = {row["check_name"]: row for row in marts.rows("select * from fct_judge_checks where is_newest")}
    return {
        "checks": [checks[name] for name in WORDS if name in checks],
        "words": WORDS,
        "profiles": profiles(marts),
        "slices": marts.rows(
            """select * from fct_judge_scores where run_date = (select max(run_date) from fct_judge_scores)
                order by role = 'challenger', model_version, slice <> 'all', slice"""
        ),
        "lists": lists(marts),
        "withheld": marts.rows(
            """select run_date, judge_version, string_agg(why, '; ' order by check_name) as why from fct_judge_checks
                where not passed group by all order by run_date desc limit 10"""
        ),
        "data": sources.contracts["judge_scores"].origin,
    }


def profiles(marts: Marts) -> list[dict[str, Any]]:
    """The newest night's versions, the champion before the challenger, each with its `aspects` in their order."""
    rows = marts.rows("select * from fct_judge_means where is_newest order by role = 'challenger', model_version")
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["model_version"], {**row, "aspects": {}})["aspects"][row["aspect"]] = row
    return [
        {**one, "aspects": [one["aspects"][name] for name in _ASPECTS if name in one["aspects"]]}
        for one in found.values()
    ]


def lists(marts: Marts) -> list[dict[str, Any]]:
    """The lists with reasons, the best before the worst of each version, each with its `items`."""
    rows = marts.rows("select * from fct_judge_lists order by role = 'challenger', model_version, place, rank")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["model_version"], row["user_id"]), {**row, "items": []})["items"].append(row)
    return list(found.values())
