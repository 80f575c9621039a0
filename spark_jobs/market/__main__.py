"""`python -m spark_jobs market simulate --scale demo --folder FOLDER`: the log of a market on the ingested catalogue.

People whose true preference is known visit a shop with the newest catalogue of the lake, read lists of exactly known
chances, click, buy, rate and leave (parameters.yaml says what is assumed). The folder is a landing folder: `exposures/`
and `events/`, one file a day. `--scale`: rows of both; the same seed gives the same bytes.

`python -m spark_jobs market validity --log FOLDER --against KIND --out FOLDER` holds such a log against the logs of
real shops (validity.py), and `order --market FILE --real FILE` the order in which simple rows stand on both.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
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
from spark_jobs.market import validity
from spark_jobs.market.order import order_of, rows_of
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate

_CATALOGUE = ["item_id", "title", "brand", "category", "price"]
SCALES = {"demo": 300_000, "1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs market", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("simulate", help="write the log of a market")
    asked.add_argument("--scale", choices=SCALES, default="demo", help="how many rows, about")
    asked.add_argument("--folder", type=Path, required=True, help="where the log lands: new or empty")
    asked.add_argument("--from", dest="first", type=day, default=date(2026, 1, 1), metavar="DAY", help="its first day")
    asked.add_argument("--days", type=_days, default=60, help="how many days it tells of")
    asked.add_argument("--seed", type=int, default=7, help="other people, other luck")
    asked.add_argument("--setting", help="of parameters.yaml; without it what stands above all settings")
    asked.add_argument("--items", type=Path, metavar="FILE", help="a catalogue (Parquet) in place of the lake's newest")
    asked.set_defaults(does=_simulate)
    card = commands.add_parser("validity", help="hold a log against those of real shops")
    card.add_argument("--log", type=Path, required=True, help="the folder of a market's log")
    card.add_argument("--against", choices=validity.Width.read().kinds, required=True, help="which logs of real shops")
    card.add_argument("--setting", help="that of the log: the card carries the hash of its parameters")
    card.add_argument("--out", type=Path, required=True, help="where validity.parquet and validity.md are written")
    card.set_defaults(does=_validity)
    order = commands.add_parser("order", help="compare in which order simple rows stand")
    for option, whose in (("--market", "on a market's log"), ("--real", "on a real log")):
        order.add_argument(option, type=Path, required=True, help=f"the .json of `python -m training ablation` {whose}")
    order.set_defaults(does=_order)
    args = parser.parse_args(arguments)
    args.does(args)
    return 0


def _simulate(args: argparse.Namespace) -> None:
    order = Order(SCALES[args.scale], args.seed, args.first, args.days, args.folder.absolute())
    profile, parameters, started = load_profile(), Parameters.read(setting=args.setting), monotonic()
    items = pd.read_parquet(args.items, columns=_CATALOGUE) if args.items else _catalogue(Lake(profile))
    shop = Shop.of(items, parameters, args.seed)
    with explained(profile):
        done = simulate(spark_session(profile), shop, parameters, order)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items())
    told = (
        f"{order.folder}: {rows} of {done.people:,} people on {len(shop.item_ids):,} items, {order.start} to "
        f"{order.end} (simulated; parameters {parameters.hash}, seed {order.seed}), {monotonic() - started:.0f} s"
    )
    print(told)


def _validity(args: argparse.Namespace) -> None:
    parameters, width = Parameters.read(setting=args.setting), validity.Width.read()
    rows, takes = validity.held(args.log, args.against, parameters.hash, width)
    validity.write_card(rows, args.out)
    verdicts = Counter(row.verdict for row in rows if row.source == validity.MARKET)
    print(validity.markdown(rows))
    told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    print(f"{takes:,} takes (simulated; parameters {parameters.hash}) against {args.against}: {told}")


def _order(args: argparse.Namespace) -> None:
    market, real = rows_of(args.market), rows_of(args.real)
    for metric in ("recall@10", "ndcg@10"):
        found = order_of(market.get(metric, {}), real.get(metric, {}))
        turned = "; ".join(f"{best} above {worst}" for best, worst in found.turned) or "none"
        alike = f"{found.alike} of {found.apart} pairs that are apart in {args.real.name} stand alike"
        print(f"{metric}: Kendall's tau {found.tau:.2f}; {alike}; the other way, intervals apart: {turned}")
        levels = ", ".join(f"{name} {level:.2f}" for name, level in found.levels.items())
        print(f"{metric}: a row's score on the market over that in {args.real.name}: {levels}")


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
    return pd.concat([pd.read_parquet(file.path, columns=_CATALOGUE) for file in files if file.partition == newest])


if __name__ == "__main__":
    exit_with_reason(lambda: main(sys.argv[1:]))
