"""`python -m spark_jobs market simulate --scale demo --folder FOLDER`: the log of a market on the ingested catalogue.

People whose true preference is known visit a shop with the newest catalogue of the lake, read lists of exactly known
chances, click, buy, rate and leave (parameters.yaml says what is assumed). The folder is a landing folder: `exposures/`
and `events/`, one file a day. `--scale`: rows of both; the same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from time import monotonic

import pandas as pd

from infra.arguments import day
from infra.errors import DataError, exit_with_reason
from infra.lake import Lake
from infra.profile import load_profile
from spark_jobs.engine.spark import explained, spark_session
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate

SCALES = {"demo": 300_000, "1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs market", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("simulate", help="write the log of a market")
    asked.add_argument("--scale", choices=SCALES, default="demo", help="how many rows, about")
    asked.add_argument("--folder", type=Path, required=True, help="where the log lands: new or empty")
    asked.add_argument("--from", dest="first", type=day, default=date(2026, 1, 1), metavar="DAY", help="its first day")
    asked.add_argument("--days", type=_days, default=60, help="how many days it tells of")
    asked.add_argument("--seed", type=int, default=7, help="other people, other luck")
    args = parser.parse_args(arguments)
    order = Order(SCALES[args.scale], args.seed, args.first, args.days, args.folder.absolute())
    profile, parameters, started = load_profile(), Parameters.read(), monotonic()
    shop = Shop.of(_catalogue(Lake(profile)), parameters, args.seed)
    with explained(profile):
        done = simulate(spark_session(profile), shop, parameters, order)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items())
    told = (
        f"{order.folder}: {rows} of {done.people:,} people on {len(shop.item_ids):,} items, {order.start} to "
        f"{order.end} (simulated; parameters {parameters.hash}, seed {order.seed}), {monotonic() - started:.0f} s"
    )
    print(told)
    return 0


def _days(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days; write one from 1 on")
    return int(text)


def _catalogue(lake: Lake) -> pd.DataFrame:
    """The newest delivery."""
    files = lake.files("items")
    if not files:
        raise DataError(
            "The market has no catalogue.",
            why="No item was ever published.",
            do="Ingest one: `python -m spark_jobs landed`.",
        )
    newest = max(file.partition for file in files)
    columns = ["item_id", "title", "brand", "category", "price"]
    return pd.concat([pd.read_parquet(file.path, columns=columns) for file in files if file.partition == newest])


if __name__ == "__main__":
    exit_with_reason(lambda: main(sys.argv[1:]))
