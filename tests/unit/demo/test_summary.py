from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from infra.demo.summary import _rungs


def test_a_rung_that_was_left_out_says_why() -> None:
    figures: dict[str, Any] = {"origin": "real", "ndcg_before": 0.0318, "ndcg_after": 0.0311, "legal": 0.97}
    why = "NDCG@10 0.0318 to 0.0311, at worst -7.1% (95%), more than 5% allowed"
    shown = io.StringIO()
    rungs = [
        {**figures, "rung": "sp_easy", "stands": 1.0, "reason": None},
        {**figures, "rung": "rf_easy", "stands": 0.0, "reason": None},
        {**figures, "rung": "rf_hard", "stands": 0.0, "reason": why, "preferences": 18.0},
    ]
    Console(file=shown, width=200).print(_rungs(rungs))
    easy, before, hard = [line for line in shown.getvalue().splitlines() if "0.0311" in line]
    assert "stands" in easy and "left out" not in easy
    assert "left out" in before and "None" not in before
    assert f"left out: {why}" in hard
