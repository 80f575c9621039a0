"""A market on the ingested catalogue: people whose true preference is known, who read lists, click, buy and leave.

`python -m spark_jobs market simulate --scale demo --folder FOLDER` writes its log: a landing folder with `exposures/`
(exact chances) and `events/`, one file a day. `--scale`: rows of both; the same seed gives the same bytes.
`python -m spark_jobs market replay --policy A.parquet --against B.parquet` plays two tables of lists (user_id, item_id,
rank, and chance where they are drawn) to the same people with the same luck. Whoever has a history in the lake is
somebody who might have left it. parameters.yaml says what is assumed; every figure is simulated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import monotonic

import pandas as pd

from infra.arguments import day
from infra.errors import exit_with_reason
from infra.lake import Lake
from infra.profile import Profile, load_profile
from spark_jobs.engine.spark import explained, spark_session
from spark_jobs.market.draws import Draws
from spark_jobs.market.known import catalogue, events, of_their_shop, taken
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.policy_tables import PolicyTable, read_rows, require_same_users
from spark_jobs.market.replay import people_of, replay, told
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate
from spark_jobs.market.visits import Horizon, World

SCALES = {"demo": 300_000, "1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs market", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("simulate", help="write the log of a market")
    asked.add_argument("--scale", choices=SCALES, default="demo", help="how many rows, about")
    asked.add_argument("--folder", type=Path, required=True, help="where the log lands: new or empty")
    asked.add_argument("--from", dest="first", type=day, default=date(2026, 1, 1), metavar="DAY", help="its first day")
    asked.add_argument("--days", type=_whole, default=60, help="how many days it tells of")
    played = commands.add_parser("replay", help="play two policies to the same people")
    played.add_argument("--policy", type=Path, required=True, metavar="FILE", help="its lists")
    played.add_argument("--against", type=Path, required=True, metavar="FILE", help="the lists of another")
    played.add_argument("--days", type=_whole, default=10, help="how many days each list is shown")
    played.add_argument("--people", type=_whole, default=10_000, help="to so many of the users at most")
    for command in (asked, played):
        command.add_argument("--seed", type=int, default=7, help="other people, other luck")
    args = parser.parse_args(arguments)
    profile = load_profile()
    with explained(profile):
        told = _simulate(args, profile) if args.command == "simulate" else _replay(args, profile)
    print(told)
    return 0


def _simulate(args: argparse.Namespace, profile: Profile) -> str:
    parameters, started = Parameters.read(), monotonic()
    order = Order(SCALES[args.scale], args.seed, args.first, args.days, args.folder.absolute())
    order.require_room()
    shop = Shop.of(catalogue(Lake(profile)), parameters, args.seed)
    done = simulate(spark_session(profile), shop, parameters, order)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items())
    return (
        f"{order.folder}: {rows} of {done.people:,} people on {len(shop.item_ids):,} items, {order.start} to "
        f"{order.end} (simulated; parameters {parameters.hash}, seed {order.seed}), {monotonic() - started:.0f} s"
    )


def _replay(args: argparse.Namespace, profile: Profile) -> str:
    parameters, lake, started = Parameters.read(), Lake(profile), monotonic()
    files = (args.policy, args.against)
    rows = [read_rows(file) for file in files]
    items = of_their_shop(catalogue(lake), set(pd.concat(rows)["item_id"]))
    ids = sorted(items["item_id"])
    a, b = (PolicyTable.of(one, ids, str(file)) for one, file in zip(rows, files, strict=True))
    require_same_users(a, b)
    if a.version == b.version:
        a, b = replace(a, version=f"{a.version} (1)"), replace(b, version=f"{b.version} (2)")
    shop = Shop.of(items, parameters, args.seed)
    world = World(shop, parameters, Draws(args.seed), Horizon(0, args.days))
    a, b = a.first(args.people), b.first(args.people)
    people = people_of(world, a.users, taken(events(lake), a.users))
    played = replay(spark_session(profile), world, people, (a, b))
    head = (
        f"{a.version} against {b.version}: {len(people):,} people, {args.days} days, {len(items):,} items (simulated; "
        f"parameters {parameters.hash}, seed {args.seed}), {monotonic() - started:.0f} s"
    )
    return "\n".join([head, *told(played, a.version, b.version, args.seed)])


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write one from 1 on")
    return int(text)


if __name__ == "__main__":
    exit_with_reason(lambda: main(sys.argv[1:]))
