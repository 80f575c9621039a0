"""What the semantic judge says of each version's lists, whether it could be trusted, and the best and worst lists."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

from markupsafe import Markup

from infra.report import charts
from infra.report.marts import Marts, Sources
from infra.report.sections.models import NEWEST_FIRST

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
    """The newest night: its checks, how its scores are spread, a profile of each version by aspect, slices, and lists;
    nights withheld; and what the newest run of the system says of its teacher and of its routing."""
    marts = sources.marts
    checks = {row["check_name"]: row for row in marts.rows("select * from fct_judge_checks where is_newest")}
    return {
        "checks": [checks[name] for name in WORDS if name in checks],
        "words": WORDS,
        "histograms": histograms(marts),
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
        "routed": routed(marts),
        "agreement": agreement(marts),
        "data": sources.contracts["judge_scores"].origin,
    }


def histograms(marts: Marts) -> list[dict[str, Any]]:
    """The newest night's versions, each with its ten `bins` and its `strip`, all on one scale; none where withheld."""
    rows = marts.rows(
        "select * from fct_judge_histogram order by role = 'challenger', model_version, judge_version, lower"
    )
    top = max((row["share"] for row in rows), default=1.0)
    found = [list(own) for _, own in groupby(rows, key=lambda row: (row["model_version"], row["judge_version"]))]
    strips = [charts.shares_by_bin([row["share"] for row in own], top) for own in found]
    return [{**own[0], "bins": own, "strip": Markup(strip)} for own, strip in zip(found, strips, strict=True)]  # noqa: S704


def routed(marts: Marts) -> list[dict[str, Any]]:
    """What share of cases the newest evaluation left to the language scorer; none where it has routed nothing."""
    return [row for row in newest(marts, "evaluate") if row["metric"] == "routed"]


def agreement(marts: Marts) -> list[dict[str, Any]]:
    """`kappa`, `weighted` and `n` of teacher and people, then of people, by aspect; none where nobody has corrected.

    A kappa that is no number, where all have said the same, is None.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in newest(marts, "teach"):
        match row["metric"].split("."):
            case ["kappa", aspect, who, *rest]:
                value = None if math.isnan(row["value"]) else row["value"]
                one = found.setdefault((who, aspect), {"who": who, "aspect": aspect, "origin": row["origin"]})
                one["".join(rest) or "kappa"] = value
    return [found[who, name] for who in ("teacher", "people") for name in _ASPECTS if (who, name) in found]


def newest(marts: Marts, stage: str) -> list[dict[str, Any]]:
    """What the stage's newest run has measured."""
    return marts.rows(
        f"""select * from fct_model_metrics where system = 'semantic_judge' and stage = ?
            qualify dense_rank() over (order by {NEWEST_FIRST}) = 1""",  # noqa: S608
        [stage],
    )


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
