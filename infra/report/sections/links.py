"""The pages beside this one, those that are there."""

from __future__ import annotations

from typing import Any

from infra.report.marts import Sources

TITLE = "More"
_LINKS = (
    ("Hints in the search box: who sees which, and why", "hints.html"),
    ("Data Docs: every expectation, by run", "data_docs/index.html"),
    ("dbt docs: marts, columns, lineage", "dbt/index.html"),
)


def read(sources: Sources) -> dict[str, Any] | None:
    """Name and address of each; no section where there is none."""
    links = [(name, href) for name, href in _LINKS if (sources.folder / href).is_file()]
    return {"links": links} if links else None
