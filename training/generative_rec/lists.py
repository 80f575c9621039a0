"""What rows of a run would show: `python -m training.generative_rec.lists --run RUN --rows business a2po --out DIR`.

RUN is the folder of a run whose stage `evaluate` is done. Each row's `DIR/<row>.parquet` holds a list for everybody who
stands in the test part, after the last thing that they did there: `user_id`, `rank`, `item_id`, `model_version` (the
row). These are the policy tables that `python -m spark_jobs market replay` plays to people whose preference is known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from common.folders import make_folder
from training.core.errors import DataError, exit_code_of
from training.core.progress import Progress
from training.core.stage import StageSpec, resolve_config
from training.generative_rec.serve import load, package
from training.generative_rec.stages.evaluate import Config
from training.next_item.recommender import ListRequest, Recommender
from training.next_item.samples import model_folder, of_subset, read_samples

_AT_ONCE = 64
_SCHEMA = pa.schema({"user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "model_version": pa.string()})


def lists_of(row: str, recommender: Recommender, asked: Sequence[ListRequest], top: int) -> pa.Table:
    """The first `top` items for each that is asked, under the name of the row."""
    lines = list[dict[str, object]]()
    with Progress(len(asked), row, "list") as progress:
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            for one, ranking in zip(part, recommender.answer(part, top, None), strict=True):
                key = {"user_id": one.user, "model_version": row}
                lines += [{**key, "rank": rank, "item_id": item} for rank, (item, _) in enumerate(ranking, start=1)]
            progress.advance(len(part))
    return pa.Table.from_pylist(lines, schema=_SCHEMA)


def histories(spec: StageSpec, *, rank_own: bool) -> list[ListRequest]:
    """Of everybody of the test part, with the item of their last sample at the end."""
    last = {one.user_id: [*one.history, one.item_id] for one in of_subset(read_samples(spec, "time"), "test")}
    return [ListRequest.after(history, user, {}, rank_own=rank_own) for user, history in sorted(last.items())]


def write_lists(run: Path, rows: Sequence[str], top: int, out: Path) -> None:
    """Write a file for each of the rows.

    Raises:
        DataError: the run has no evaluation, or a row that no stage of it has trained.
    """
    file = run / "evaluate" / "spec.json"
    if not file.is_file():
        raise DataError("the run has no evaluation", where=str(file), do="run the job up to `evaluate`")
    spec = StageSpec.load(file)
    config = resolve_config(spec, Config)
    there = [row for row in config.models if not spec.left_out(row)]
    if unknown := sorted(set(rows) - set(there)):
        raise DataError(f"the run has trained no {', '.join(unknown)}", where=str(run), do=f"use {', '.join(there)}")
    asked = histories(spec, rank_own=config.rank_own)
    make_folder(out)
    for row in rows:
        with TemporaryDirectory(dir=out) as scratch:
            folder = Path(scratch) / "model"
            package(spec.artifact(row) / model_folder("time"), spec.artifact(config.models[row]), config.served, folder)
            pq.write_table(lists_of(row, load(folder), asked, top), out / f"{row}.parquet")


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m training.generative_rec.lists",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a run, with its stages")
    parser.add_argument("--rows", nargs="+", required=True, help="names of models of the stage `evaluate`")
    parser.add_argument("--top", type=int, default=10, help="length of a list (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the tables are written")
    options = parser.parse_args()
    return exit_code_of(lambda: write_lists(options.run, options.rows, options.top, options.out))


if __name__ == "__main__":
    sys.exit(main())
