"""Rebuilds what the analysts read: the lake's views, the dbt marts with their tests and docs, the report's pages."""

from __future__ import annotations

import sys

from feature_store.hint_page import write_hint_page
from infra import dbt
from infra.errors import exit_with_reason
from infra.lake import Lake, export_duckdb
from infra.ledger import Ledger
from infra.profile import load_profile
from infra.report.page import write_report


def main() -> int:
    """Build it from what is committed."""
    profile = load_profile()
    views = export_duckdb(Lake(profile), Ledger(profile))
    dbt.build(profile, views)
    write_hint_page(profile)
    sys.stdout.write(f"{write_report(profile, views)}\n")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
