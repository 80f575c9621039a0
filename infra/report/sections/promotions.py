"""The append-only ledger of decisions about models."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Marts, Sources

TITLE = "Promotions"


def read(sources: Sources) -> dict[str, Any]:
    """One line per decision."""
    return {"promotions": promotions(sources.marts)}


def promotions(marts: Marts) -> list[dict[str, Any]]:
    """The promotion ledger, newest first."""
    return marts.rows("select * from fct_promotions order by decision_id desc")
