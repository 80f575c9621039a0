"""The analysts' dbt project: its sources are generated from the contracts, and its paths are set from the profile.

`python -m infra.dbt sources` rewrites `dbt/models/staging/sources.yml`; `... build` builds marts and docs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from common.folders import make_folder
from infra import endings, processes, warm
from infra.contracts import Contract, all_contracts, duckdb_types
from infra.errors import PlumblineError, exit_with_reason
from infra.profile import CHECKOUT, Profile, load_profile
from infra.telemetry import TELEMETRY_OFF

PROJECT = CHECKOUT / "dbt"
SOURCES = PROJECT / "models" / "staging" / "sources.yml"
_LEDGER_TABLES = {
    "ledger_commits": "Commits of the run ledger. Grain: one row per commit of a partition.",
    "rule_results": "What each rule found. Grain: one row per rule and committed partition.",
}


class DbtFailed(PlumblineError):
    """A dbt model, test or unit test failed."""


def marts_path(profile: Profile) -> Path:
    """The DuckDB file that holds the marts."""
    return profile.home / "dbt" / "marts.duckdb"


def sources_document(contracts: dict[str, Contract]) -> dict[str, Any]:
    """The dbt sources file as a document: one source table per contract, and the ledger's two views."""
    lake = [_source_table(contract) for contract in contracts.values()]
    ledger = [{"name": name, "description": text} for name, text in _LEDGER_TABLES.items()]
    return {
        "version": 2,
        "sources": [
            {"name": "lake", "database": "lake", "schema": "main", "tables": lake},
            {"name": "ledger", "database": "lake", "schema": "main", "tables": ledger},
        ],
    }


def _source_table(contract: Contract) -> dict[str, Any]:
    types = duckdb_types(contract)
    return {
        "name": contract.table,
        "description": f"{contract.description} Grain: {contract.grain}",
        "config": {"meta": {"owner": contract.owner, "origin": contract.origin, "partition": contract.partition}},
        "columns": [
            {"name": c.name, "data_type": types[c.name].lower(), "description": c.description} for c in contract.columns
        ],
    }


def render_sources() -> str:
    """The text of `sources.yml`."""
    head = "# Generated from spark_jobs/contracts by `python -m infra.dbt sources`. Do not edit.\n"
    return head + yaml.safe_dump(sources_document(all_contracts()), sort_keys=False, width=120)


def build(profile: Profile, lake_views: Path) -> None:
    """Build marts, run tests and unit tests, and write the static docs to `<home>/report/dbt/index.html`.

    Raises:
        DbtFailed: dbt said no; its own output stands above.
    """
    make_folder(marts_path(profile).parent)
    colours = [] if sys.stderr.isatty() else ["--no-use-colors"]
    options = [*colours, "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    argv = processes.python("infra.dbt_commands", *options)
    code = endings.follow(warm.start("steps", argv, CHECKOUT, _environment(profile, lake_views)), _tell)
    endings.explain("dbt", code, do="Run it again, with less beside it or on a machine with more memory.")
    if code != 0:
        raise DbtFailed(
            "dbt failed.", where=str(PROJECT), why="See dbt's lines above.", do="Mend the model or its data."
        )
    page = profile.home / "report" / "dbt" / "index.html"
    make_folder(page.parent)
    shutil.copyfile(profile.home / "dbt" / "target" / "static_index.html", page)


def _tell(line: str) -> None:
    """What dbt says is progress, and no result of the command that builds: a reader of that takes standard output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _environment(profile: Profile, lake_views: Path) -> dict[str, str]:
    state = profile.home / "dbt"
    return {
        **os.environ,
        **TELEMETRY_OFF,
        "PLUMBLINE_MARTS": str(marts_path(profile)),
        "PLUMBLINE_LAKE_VIEWS": str(lake_views),
        "DBT_TARGET_PATH": str(state / "target"),
        "DBT_LOG_PATH": str(state / "logs"),
    }


def main() -> int:
    """`sources` rewrites the sources file; `build` builds over the newest export of the lake."""
    parser = argparse.ArgumentParser(prog="python -m infra.dbt", description=__doc__)
    parser.add_argument("action", choices=("sources", "build"))
    if parser.parse_args().action == "sources":
        SOURCES.write_text(render_sources())
        return 0
    profile = load_profile()
    build(profile, profile.home / "lake" / "lake.duckdb")
    return 0


if __name__ == "__main__":
    exit_with_reason(main)
