"""A market on a real catalogue: people whose true preference is known, who read lists, click, buy and leave.

`python -m spark_jobs market simulate --scale demo --folder FOLDER` writes its log: a landing folder with `exposures/`
and `hint_exposures/` (exact chances), `searches/`, `events/` and `chats/` (where the lake has `intents`), one file a
day, and the truth beside them, which no job that makes samples, features or models may read. `--scale`: rows of the
log; the same seed gives the same bytes.
`... replay --policy A.parquet --against B.parquet` plays two tables of lists (user_id, item_id, rank, and chance where
they are drawn), of hints (`query` in place of item_id), or of intents that a help desk shows before anything is typed
(`intent`), to the same people with the same luck. Whoever has a history in the lake is somebody who might have left it.
`... estimate` holds what the log of one policy says of others (off_policy.py) against what the market does.
`... validity --log FOLDER --against KIND --out FOLDER` holds a log against those of real shops (validity.py), and
`... order --market FILE --real FILE` the order in which simple rows stand on both.
`... samples --out DIR` writes what the shop knows as the tables that `python -m training bench` reads.
`... shown --out DIR` writes what people were shown, for a judge to score (`training.semantic_judge.shown`), and
`... judged --scores FILE` holds the scores against what these items were worth to them (judged.py).

parameters.yaml says what is assumed; every figure is simulated. Without --items the newest catalogue of the lake is it,
with the lake's queries; beside --items those of --queries.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import monotonic

import numpy as np
import pandas as pd

from infra.arguments import day
from infra.errors import DataError, exit_with_reason
from infra.lake import Lake
from infra.profile import Profile, load_profile
from spark_jobs.engine.spark import explained, spark_session
from spark_jobs.market import judged, off_policy_check, validity
from spark_jobs.market.desk import Desk
from spark_jobs.market.draws import Draws
from spark_jobs.market.kinds import everybody_reads
from spark_jobs.market.known import COLUMNS, catalogue, events, intents, of_their_shop, queries, taken, utterances
from spark_jobs.market.menu import Menu
from spark_jobs.market.order import order_of, rows_of
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.policy_tables import PolicyTable, read_rows, require_same_users, same_thing
from spark_jobs.market.queries import asked_in
from spark_jobs.market.replay import people_of, replay, told
from spark_jobs.market.samples import write_samples
from spark_jobs.market.shop import Shop
from spark_jobs.market.simulate import Order, simulate
from spark_jobs.market.visits import Horizon, World

_PLAYED = {"item_id": "", "query": ", hints", "intent": ", intents"}
SCALES = {"demo": 300_000, "1M": 1_000_000, "10M": 10_000_000, "100M": 100_000_000}


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for."""
    args = _parser().parse_args(arguments)
    profile = load_profile()
    with explained(profile):
        print(args.does(args, profile))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spark_jobs market", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("simulate", help="write the log of a market")
    asked.add_argument("--scale", choices=SCALES, default="demo", help="how many rows, about")
    asked.add_argument("--folder", type=Path, required=True, help="where the log lands: new or empty")
    asked.add_argument("--from", dest="first", type=day, default=date(2026, 1, 1), metavar="DAY", help="its first day")
    asked.add_argument("--days", type=_whole, default=60, help="how many days it tells of")
    asked.set_defaults(does=_simulate)
    played = commands.add_parser("replay", help="play two policies to the same people")
    played.add_argument("--policy", type=Path, required=True, metavar="FILE", help="its lists")
    played.add_argument("--against", type=Path, required=True, metavar="FILE", help="the lists of another")
    played.add_argument("--days", type=_whole, default=10, help="how many days each list is shown")
    played.add_argument("--people", type=_whole, default=10_000, help="to so many of the users at most")
    played.set_defaults(does=_replay)
    weighed = commands.add_parser("estimate", help="hold estimates from one policy's log against the truth")
    weighed.add_argument("--days", type=_whole, default=30, help="how many days the log tells of")
    weighed.add_argument("--people", type=_whole, default=1_000, help="of so many people")
    weighed.set_defaults(does=_estimate)
    for command in (asked, played, weighed):
        command.add_argument("--seed", type=int, default=7, help="other people, other luck")
        command.add_argument("--setting", help="of parameters.yaml; without it what stands above all settings")
        command.add_argument("--items", type=Path, metavar="FILE", help="a catalogue (Parquet) in place of the lake's")
    for command in (asked, played):
        command.add_argument("--queries", type=Path, metavar="FILE", help="what people search for (Parquet: query)")
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
    samples = commands.add_parser("samples", help="write the samples of the shop, for `training bench`")
    samples.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they are written")
    samples.set_defaults(does=_samples)
    shown = commands.add_parser("shown", help="write what people were shown, for a judge to score")
    shown.add_argument("--from", dest="first", type=day, metavar="DAY", help="since when; without it, for test")
    shown.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it is written")
    shown.set_defaults(does=_shown)
    scored = commands.add_parser("judged", help="hold a judge's scores against the truth")
    scored.add_argument("--scores", type=Path, required=True, metavar="FILE", help="of `training.semantic_judge.shown`")
    scored.add_argument("--seed", type=int, default=7, help="of the bootstrap")
    scored.set_defaults(does=_judged)
    return parser


def _simulate(args: argparse.Namespace, profile: Profile) -> str:
    parameters, started = Parameters.read(setting=args.setting), monotonic()
    order = Order(SCALES[args.scale], args.seed, args.first, args.days, args.folder.absolute())
    order.require_room()
    shop = Shop.of(_items(args, profile), parameters, args.seed, _queries(args, profile))
    desk = Desk.of(utterances(Lake(profile)), parameters.chats)
    done = simulate(spark_session(profile), shop, parameters, order, desk)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items())
    return (
        f"{order.folder}: {rows} of {done.people:,} people on {len(shop.item_ids):,} items, {order.start} to "
        f"{order.end} (simulated; parameters {parameters.hash}, seed {order.seed}), {monotonic() - started:.0f} s\n"
        f"{asked_in(len(shop.asked), done.queries)}\n{desk.told()}"
    )


def _replay(args: argparse.Namespace, profile: Profile) -> str:
    parameters, started = Parameters.read(setting=args.setting), monotonic()
    files = (args.policy, args.against)
    rows = [read_rows(file) for file in files]
    thing = same_thing(rows, f"{args.policy} and {args.against}")
    shown, items = set(pd.concat(rows)[thing].dropna()), _items(args, profile)
    items = of_their_shop(items, shown) if thing == "item_id" else items
    desk, menu = _menu(profile, parameters) if thing == "intent" else (None, None)
    known = menu.intents if menu else sorted(items["item_id"] if thing == "item_id" else shown)
    a, b = (PolicyTable.of(one, known, str(file)) for one, file in zip(rows, files, strict=True))
    require_same_users(a, b)
    if a.version == b.version:
        a, b = replace(a, version=f"{a.version} (1)"), replace(b, version=f"{b.version} (2)")
    hints, asked = (known, _queries(args, profile)) if thing == "query" else ((), ())
    shop = Shop.of(items, parameters, args.seed, asked)
    world = World(shop, parameters, Draws(args.seed), Horizon(0, args.days), desk=desk, hints=hints, menu=menu)
    a, b = a.first(args.people), b.first(args.people)
    people = people_of(world, a.users, taken(events(Lake(profile)), a.users, parameters.people.remembers))
    played = replay(spark_session(profile), world, people, (a, b))
    head = (
        f"{a.version} against {b.version}{_PLAYED[thing]}: {len(people):,} people, {args.days} days, "
        f"{len(items):,} items (simulated; "
        f"parameters {parameters.hash}, seed {args.seed}), {monotonic() - started:.0f} s"
    )
    return "\n".join([head, *told(played, a.version, b.version, args.seed)])


def _menu(profile: Profile, parameters: Parameters) -> tuple[Desk, Menu]:
    texts = intents(Lake(profile))
    desk = Desk.of(texts[texts["kind"] == "utterance"], parameters.chats)
    if not desk.intents:
        why = "The lake has no text of an intent that parameters.yaml names."
        raise DataError("Nobody opens a chat in this market.", why=why, do="Ingest `intents`, with wordings.")
    return desk, Menu.of(texts, desk)


def _estimate(args: argparse.Namespace, profile: Profile) -> str:
    parameters, started = everybody_reads(Parameters.read(setting=args.setting)), monotonic()
    shop = Shop.of(_items(args, profile), parameters, args.seed)
    world = World(shop, parameters, Draws(args.seed), Horizon(0, args.days))
    people = world.people(np.arange(args.people))
    checked = off_policy_check.check(world, people, off_policy_check.rivals_of(world), args.seed)
    tail = (
        f"Clicks by list; {args.people:,} people, {args.days} days, {len(shop.item_ids):,} items (simulated; "
        f"parameters {parameters.hash}, seed {args.seed}), {monotonic() - started:.0f} s"
    )
    return "\n".join([*off_policy_check.told(checked), "", tail])


def _validity(args: argparse.Namespace, profile: Profile) -> str:
    parameters, width = Parameters.read(setting=args.setting), validity.Width.read()
    rows, takes = validity.held(args.log, args.against, parameters.hash, width)
    validity.write_card(rows, args.out)
    verdicts = Counter(row.verdict for row in rows if row.source == validity.MARKET)
    found = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    head = f"{takes:,} takes (simulated; parameters {parameters.hash}) against {args.against}: {found}"
    return f"{validity.markdown(rows)}\n{head}"


def _order(args: argparse.Namespace, profile: Profile) -> str:
    market, real = rows_of(args.market), rows_of(args.real)
    lines = []
    for metric in ("recall@10", "ndcg@10"):
        found = order_of(market.get(metric, {}), real.get(metric, {}))
        turned = "; ".join(f"{best} above {worst}" for best, worst in found.turned) or "none"
        alike = f"{found.alike} of {found.apart} pairs that are apart in {args.real.name} stand alike"
        lines.append(f"{metric}: Kendall's tau {found.tau:.2f}; {alike}; the other way, intervals apart: {turned}")
        levels = ", ".join(f"{name} {level:.2f}" for name, level in found.levels.items())
        lines.append(f"{metric}: a row's score on the market over that in {args.real.name}: {levels}")
    return "\n".join(lines)


def _samples(args: argparse.Namespace, profile: Profile) -> str:
    rows = write_samples(Lake(profile), args.out)
    return f"{args.out}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()) + " (simulated)"


def _shown(args: argparse.Namespace, profile: Profile) -> str:
    first = args.first or profile.samples.test_from
    return f"{args.out}: {judged.hand_out(Lake(profile), first, args.out):,} places shown since {first} (simulated)"


def _judged(args: argparse.Namespace, profile: Profile) -> str:
    found = judged.of_lake(Lake(profile), _read(args.scores, judged.KEY, "table of scores", more=True), args.seed)
    tail = f"{found.pairs:,} pairs for test; {found.requests:,} lists of {found.people:,} people (simulated)"
    return "\n".join([*judged.told(found), "", tail])


def _items(args: argparse.Namespace, profile: Profile) -> pd.DataFrame:
    """Those of a file have no shop beside them, so no source."""
    if args.items is None:
        return catalogue(Lake(profile))
    needed = [column for column in COLUMNS if column != "source"]
    return _read(args.items, needed, "catalogue").astype({"item_id": str}).assign(source="given")


def _queries(args: argparse.Namespace, profile: Profile) -> list[str]:
    if args.queries is not None:
        texts = _read(args.queries, ["query"], "table of queries")["query"].dropna().astype(str).str.strip()
        return sorted(set(texts) - {""})
    return [] if args.items is not None else queries(Lake(profile))


def _read(file: Path, needed: Sequence[str], what: str, *, more: bool = False) -> pd.DataFrame:
    """The columns `needed` of a file; all that it has where there may be `more`."""
    try:
        found = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise DataError(f"The {what} cannot be read.", where=str(file), why=str(error)) from error
    if lacking := [column for column in needed if column not in found]:
        why = f"It has no {', '.join(lacking)}."
        raise DataError(f"The {what} lacks columns.", where=str(file), why=why, do="Give it all, empty or not.")
    return found if more else found[list(needed)]


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write one from 1 on")
    return int(text)


if __name__ == "__main__":
    exit_with_reason(lambda: main(sys.argv[1:]))
