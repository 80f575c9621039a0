"""What the feature store says of the user of a question, as of the question: numbers, by the feature's full name.

A table of samples has them in columns, joined as of each sample. Of items it has features too, of the answer alone: to
rank by them is to be told the answer, so nobody is given one. What is unknown of a user is not in a question's mapping.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

import pyarrow as pa

from common.feature_names import USER, entity_of
from training.core.errors import DataError
from training.core.stage import StageSpec, column_types, is_main_process

StoreFeatures = Mapping[str, float]
Types = dict[str, pa.DataType]


def told(spec: StageSpec, table: str) -> Types:
    """Every number and flag that one of the spec's tables has of its users from the feature store, with its type."""
    return {
        name: kind
        for name, kind in column_types(spec, table).items()
        if entity_of(name) == USER
        and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
    }


def chosen(spec: StageSpec, table: str, names: Collection[str]) -> Types:
    """Those of these names.

    Raises:
        DataError: one of them would give the answer away, or is no number of the user.
    """
    if not names:
        return {}
    known = told(spec, table)
    do = f"name some of: {', '.join(known) or '(none: the table has no features of users)'}"
    for name in names:
        if name in known:
            continue
        if (of := entity_of(name)) not in ("", USER):
            why = "the table has it of the item that was taken and of no other: to rank by it is to be told the answer"
            raise DataError(f"{name!r} is a feature of the {of}, not of the user", where=table, why=why, do=do)
        why = "it is no number and no flag" if name in column_types(spec, table) else "there is no such column"
        raise DataError(f"{name!r} is no feature that can be ranked by", where=table, why=why, do=do)
    return {name: known[name] for name in names}


def still_told(spec: StageSpec, table: str, names: Collection[str]) -> Types:
    """Those of a model's features that the table has. The log names the others: they are unknown, as of a new user."""
    known = told(spec, table) if names else {}
    if (gone := sorted(set(names) - known.keys())) and is_main_process():
        sys.stderr.write(
            f"warning: {table} no longer has {', '.join(gone)}, which the ranker has learnt with: unknown for all\n"
        )
    return {name: known[name] for name in names if name in known}
