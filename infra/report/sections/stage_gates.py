"""Stages with a gate of their own, and what was left out, of the newest run of each kind."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Stages"


def read(sources: Sources) -> dict[str, Any] | None:
    """One line per stage; no section before the first."""
    gates = stage_gates(sources.marts)
    return {"gates": gates} if gates else None


def stage_gates(marts: Marts) -> list[dict[str, Any]]:
    """The newest records by system, in the order in which the stages finished."""
    return marts.rows("select * from fct_stage_gates where is_newest order by system, run, finished_at, stage")
