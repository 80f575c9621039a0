"""Tables of the market's truth: what people really want, which no sample, feature or model may ever have seen.

Their names begin with `true_`. Whoever declares what it reads (a Spark job, a stage, a view of the feature store, a
training set) is refused here before it reads anything; a test walks all declarations, those of dbt among them.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import DataError

EVALUATION = "market_evaluation"
"""Who may read them: a job, a stage or a mart of this name, which measures in the market and teaches nobody."""
_PREFIX = "true_"


def is_truth(table: str) -> bool:
    """Whether it holds what nobody in a shop could know."""
    return table.startswith(_PREFIX)


def forbidden(tables: Iterable[str], reader: str) -> list[str]:
    """Those of `tables` that the reader of this name may not see."""
    return [] if reader == EVALUATION else sorted(filter(is_truth, set(tables)))


def refuse_truth(tables: Iterable[str], reader: str, where: str) -> None:
    """Raise a DataError where the reader of this name would see the truth."""
    if seen := forbidden(tables, reader):
        raise DataError(
            f"{reader} reads the market's truth.",
            where=where,
            why=f"Who has seen {', '.join(seen)} can be measured by nothing that the market tells.",
            do=f"Read what a shop knows; what only measures is called {EVALUATION}.",
        )
