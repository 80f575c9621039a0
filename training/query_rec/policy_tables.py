"""What rows of a run would show: `python -m training.query_rec.policy_tables --run RUN --rows counted --out DIR`.

RUN is the folder of a run whose stage `evaluate` is done. Each row's `DIR/<row>.parquet` holds hints for everybody who
stands in the test part, before the last of their days there: `user_id`, `rank`, `query`, `model_version` (the row).
These are the policy tables that `python -m spark_jobs market replay` plays to people whose preference is known. A
search box shows something to everybody, so a row that has too few hints for somebody is filled up by what is popular.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.folders import make_folder
from training.core.errors import DataError, exit_code_of
from training.core.stage import StageSpec, resolve_config
from training.query_rec.counting import POPULAR
from training.query_rec.examples import Example, Examples
from training.query_rec.hints import Hint
from training.query_rec.list_maker import THINK
from training.query_rec.shop_words import ShopWords
from training.query_rec.stages.evaluate import Config, Lists, fill_of, row_names, rows_of

_SCHEMA = pa.schema({"user_id": pa.string(), "rank": pa.int64(), "query": pa.string(), "model_version": pa.string()})


def table_of(row: str, days: Sequence[Example], hints: Lists, popular: Lists, top: int) -> pa.Table:
    """The first `top` queries for each of the days, each once whatever its case, under the name of the row."""
    lines = list[dict[str, object]]()
    for day, own, fill in zip(days, hints, popular, strict=True):
        key = {"user_id": day.person.user_id, "model_version": row}
        shown = list(_once([*own, *fill]))[:top]
        lines += [{**key, "rank": rank, "query": query} for rank, query in enumerate(shown, start=1)]
    return pa.Table.from_pylist(lines, schema=_SCHEMA)


def _once(hints: Sequence[Hint]) -> Iterator[str]:
    seen = set[str]()
    for hint in hints:
        if (key := hint.query.lower()) not in seen:
            seen.add(key)
            yield hint.query


def write_tables(run: Path, rows: Sequence[str], top: int, out: Path) -> None:
    """Write a file for each of the rows.

    Raises:
        DataError: the run has no evaluation, or nothing to ask on a test day, or no such row.
    """
    file = run / "evaluate" / "spec.json"
    if not file.is_file():
        raise DataError("the run has no evaluation", where=str(file), do="run the job up to `evaluate`")
    spec = StageSpec.load(file)
    config = resolve_config(spec, Config)
    known = row_names(spec, config)
    if unknown := sorted(set(rows) - set(known)):
        raise DataError(f"the run has no row {', '.join(unknown)}", where=str(run), do=f"use {', '.join(known)}")
    lists = Examples.open(spec.artifact(config.lists) / "lists")
    asked = sorted(lists.read(THINK, {"test"}, config.days), key=lambda one: (one.person.user_id, one.day))
    days = list({one.person.user_id: one for one in asked}.values())
    if not days:
        raise DataError("nobody has searched on a test day", where=str(run), do="give a run of more days")
    made = rows_of(spec, config, fill_of(config, ShopWords.read(spec), lists.searches()), days).hints
    make_folder(out)
    for row in rows:
        pq.write_table(table_of(row, days, made[row], made[POPULAR], top), out / f"{row}.parquet")


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m training.query_rec.policy_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a run, with its stages")
    parser.add_argument("--rows", nargs="+", required=True, help="names of rows of the stage `evaluate`")
    parser.add_argument("--top", type=int, default=10, help="length of a list (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the tables are written")
    options = parser.parse_args()
    return exit_code_of(lambda: write_tables(options.run, options.rows, options.top, options.out))


if __name__ == "__main__":
    sys.exit(main())
