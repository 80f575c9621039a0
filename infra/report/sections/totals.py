"""The figures on top of the page: all tables together."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Sources
from infra.report.sections.quality import table_quality

TITLE = ""


def read(sources: Sources) -> dict[str, Any]:
    """Sums over all tables, and of what origin their data is."""
    tables = table_quality(sources.marts, sources.contracts)
    return {
        "tables": len(tables),
        "partitions": sum(table.partitions for table in tables),
        "rows_out": sum(table.rows_out for table in tables),
        "rows_quarantined": sum(table.rows_quarantined for table in tables),
        "unbalanced": sum(table.unbalanced for table in tables),
        "origins": sorted({table.origin for table in tables}),
    }
