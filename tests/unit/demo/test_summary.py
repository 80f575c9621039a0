from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from infra.demo.summary import _lists, _rungs


def test_a_rung_that_was_left_out_says_why() -> None:
    figures: dict[str, Any] = {"origin": "real", "ndcg_before": 0.0318, "ndcg_after": 0.0311, "legal": 0.97}
    why = "NDCG@10 0.0318 to 0.0311, at worst -7.1% (95%), more than 5% allowed"
    shown = io.StringIO()
    rungs = [
        {**figures, "rung": "sp_easy", "stands": 1.0, "outcome": "stands"},
        {**figures, "rung": "rf_hard", "stands": 0.0, "outcome": f"left out: {why}", "preferences": 18.0},
        {"origin": "real", "rung": "sft", "stands": 0.0, "outcome": "left out: the shop is too small"},
    ]
    Console(file=shown, width=200).print(_rungs(rungs))
    easy, hard = [line for line in shown.getvalue().splitlines() if "0.0311" in line]
    assert "stands" in easy and "left out" not in easy
    assert f"left out: {why}" in hard
    assert "left out: the shop is too small" in shown.getvalue()


def test_the_end_names_who_made_the_lists_or_says_that_there_are_none() -> None:
    made = [
        {"by": "3", "role": "champion", "users": 1200, "day": "2024-03-01"},
        {"by": "covisit", "role": "baseline", "users": 9, "day": "2024-03-01"},
    ]
    said = "1,200 users by version 3 (champion), 9 users by covisit (baseline)"
    assert _lists({"lists": made}) == f"lists: {said}, histories up to 2024-03-01"
    assert "no version was promoted" in _lists({"lists": []})
