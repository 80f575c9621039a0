"""Great Expectations validates partitions on their aggregates, one row each: its cost does not grow with their rows.

Importing Great Expectations takes about 8 s, so only what asks it does so; `import_ahead` lets it happen beside other
work.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

from infra.contracts import Contract, Expectation
from infra.partitions import RuleResult
from infra.profile import Profile
from infra.quality.data_docs import DOCS_SITE, free_of_network, site_config, site_folder
from infra.quality.row_notes import tell_of_rows

EXPECTATION = "expectation: "
_QUIET = {"GX_ANALYTICS_ENABLED": "false"}
_SEVERITY = {"fail": "critical", "warn": "warning"}


def validate_partitions(
    profile: Profile, contract: Contract, rows: Sequence[Mapping[str, Any]]
) -> dict[date, tuple[RuleResult, ...]]:
    """One `RuleResult` per expectation of the contract and partition; Data Docs get a page for the run.

    `rows` are aggregates with a `partition` each. An expectation that raises is there once per partition, as an error.
    `rows_failed` is 0: an expectation is about the partition, not its rows.
    """
    days = [row["partition"] for row in rows]
    if not contract.expectations or not days:
        return dict.fromkeys(days, ())
    results = _validate(profile, contract, rows)
    outcomes = [(expectation, _outcome_of(expectation, results)) for expectation in contract.expectations]
    return {
        day: tuple(RuleResult(name_of(e), e.level, 0, _status(outcome, day.isoformat())) for e, outcome in outcomes)
        for day in days
    }


def import_ahead() -> threading.Thread:
    """Begin to import Great Expectations in the background, as while Spark starts; who needs it first waits for it.

    It imports pyspark and more: whoever asks `sys.modules` for these meanwhile, as MLflow does, has to join the thread.
    """
    os.environ.update(_QUIET)
    thread = threading.Thread(target=importlib.import_module, args=("great_expectations",), daemon=True)
    thread.start()
    return thread


def name_of(expectation: Expectation) -> str:
    """How ledger and report call an expectation, in the contract's words: `expectation: No key occurs twice`."""
    return f"{EXPECTATION}{expectation.description.rstrip('.')}"


def expectations_of(contract: Contract) -> list[Any]:
    """The contract's expectations as Great Expectations objects, in order, and in its words."""
    from great_expectations.expectations.registry import get_expectation_impl

    return [
        get_expectation_impl(e.type)(**e.kwargs, severity=_SEVERITY[e.level], description=e.description)
        for e in contract.expectations
    ]


def _outcome_of(expectation: Expectation, results: Sequence[Any]) -> Any:
    """Great Expectations reorders its results, so they are found by what was asked."""

    def is_answer(result: Any) -> bool:
        asked = result.expectation_config
        return bool(asked.type == expectation.type and expectation.kwargs.items() <= asked.kwargs.items())

    return next(result for result in results if is_answer(result))


def _status(outcome: Any, day: str) -> Literal["ok", "failed", "error"]:
    if outcome.success:
        return "ok"
    index = outcome.result.get("unexpected_index_list")
    if index is None:
        # Nothing was checked: the expectation itself raised.
        return "error"
    return "failed" if any(entry["partition"] == day for entry in index) else "ok"


def _validate(profile: Profile, contract: Contract, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    started = time.time()
    os.environ.update(_QUIET)
    import great_expectations as gx
    import pandas as pd
    from great_expectations.core.run_identifier import RunIdentifier

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="file", project_root_dir=str(profile.home / "gx"))
    context.variables.progress_bars = {"globally": False}
    if DOCS_SITE not in context.get_site_names():
        context.add_data_docs_site(site_name=DOCS_SITE, site_config=site_config(profile))
    source = context.data_sources.add_or_update_pandas(contract.table)
    batch = source.add_dataframe_asset("partitions").add_batch_definition_whole_dataframe("run")
    suite = gx.ExpectationSuite(name=contract.table, expectations=expectations_of(contract))
    definition = gx.ValidationDefinition(name=contract.table, data=batch, suite=context.suites.add_or_update(suite))
    checkpoint = gx.Checkpoint(
        name=contract.table,
        validation_definitions=[context.validation_definitions.add_or_update(definition)],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=[DOCS_SITE])],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["partition"],
            "return_unexpected_index_query": False,  # a query on a frame that is gone
        },
    )
    frame = pd.DataFrame([{**row, "partition": row["partition"].isoformat()} for row in rows])
    span = RunIdentifier(run_name=f"{frame['partition'].min()} to {frame['partition'].max()}")
    outcome = context.checkpoints.add_or_update(checkpoint).run(batch_parameters={"dataframe": frame}, run_id=span)
    tell_of_rows(profile, contract.table, rows, started)
    free_of_network(site_folder(profile), started)
    (result,) = outcome.run_results.values()
    return list(result.results)
