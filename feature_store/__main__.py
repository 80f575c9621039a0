"""`python -m feature_store apply | materialize | push | training-set | serve | show`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from feature_store.definitions import PUSHED_VIEWS, SERVICES, TRIGGER_QUERIES, VIEWS
from infra import telemetry
from infra.arguments import add_range, given_range
from infra.errors import exit_with_reason
from infra.profile import Profile, load_profile


def main() -> int:
    """Parse the arguments and run the command."""
    telemetry.apply()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("feature_store").setLevel(logging.INFO)
    arguments = _parser().parse_args()
    run: Callable[[Profile, argparse.Namespace], None] = arguments.run
    run(load_profile(), arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m feature_store", description="The feature store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "apply", _apply, "register the definitions and check the registry")
    add_range(_command(commands, "materialize", _materialize, "bring partitions into the online store"))
    push = _command(commands, "push", _push, "tell the online store of what is new, outside of a range of days")
    names = [view.name for view in (*PUSHED_VIEWS, TRIGGER_QUERIES)]
    push.add_argument("views", nargs="+", metavar="VIEW", choices=names, help=f"of {', '.join(names)}")
    training_set = _command(commands, "training-set", _training_set, "join features to samples as of their time")
    training_set.add_argument("--table", default="next_item_training_set", help="which training set (%(default)s)")
    add_range(training_set)
    _command(commands, "serve", _serve, "run the feature server on loopback")
    _command(commands, "show", _show, "list services and what is online")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[Profile, argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _apply(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.serve import apply_definitions

    for pinned in apply_definitions(profile):
        print(f"{pinned.table}: snapshot {pinned.snapshot}, {len(pinned.files)} files")
    print("The registry holds what is defined.")


def _materialize(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.materialize import materialize

    for done in materialize(profile, *given_range(arguments)):
        days = f"{done.partitions[0]} to {done.partitions[-1]}" if done.partitions else "up to date"
        print(f"{done.view}: {len(done.partitions)} partitions ({days}), {done.entities} entities read back")


def _push(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.index import publish_index
    from feature_store.push import push, pushed_view

    for name in arguments.views:
        if name == TRIGGER_QUERIES.name:
            put = publish_index(profile)
            print(f"{name}: version {put.version} in force, {put.keys} keys written" if put else f"{name}: none yet")
            continue
        done = push(profile, pushed_view(name))
        print(f"{done.view}: {done.entities} entities told and read back, of {len(done.partitions)} partitions")


def _training_set(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.training_sets import build_training_set, training_set

    wanted = training_set(arguments.table)
    published = build_training_set(profile, wanted, *given_range(arguments))
    if published is None:
        print(f"{wanted.table}: up to date")
    else:
        print(f"{wanted.table}: {len(published.recorded)} partitions published, snapshot {published.snapshot_id}")


def _serve(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.serve import serve

    serve(profile)


def _show(profile: Profile, arguments: argparse.Namespace) -> None:
    from feature_store.materialize import current_windows
    from infra.lake import Lake
    from infra.ledger import Ledger

    for service, members in SERVICES.items():
        print(f"service {service}: {', '.join(members)}")
    lake, ledger = Lake(profile), Ledger(profile)
    for view in VIEWS:
        current, done = current_windows(lake, ledger, view)
        pending = [day for day, key in current.items() if done.get(day) != key]
        online = f"{len(done)} partitions online, newest {max(done)}" if done else "nothing online"
        print(f"view {view.name} ({view.table}): {online}, {len(pending)} pending; {', '.join(view.features)}")


if __name__ == "__main__":
    exit_with_reason(main)
