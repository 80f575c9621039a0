"""What the child processes of the chaos tests do; a fork server starts them, so that each is a clean process."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update import snapshot as iceberg_snapshot

from infra.errors import EXIT_SUPERSEDED, EXIT_TRANSIENT, PlumblineError
from infra.lake import publish
from infra.ledger import Ledger
from tests.lake_kit import Day, Shop

# Something is about to become durable when these calls begin; after the three at the end it is only half so.
_BEFORE: tuple[tuple[Any, str], ...] = (
    (pq, "write_table"),
    (Ledger, "open_attempt"),
    (SqlCatalog, "create_table"),
    (iceberg_snapshot, "write_manifest_list"),
    (SqlCatalog, "commit_table"),
    (Ledger, "record"),
)
_AFTER: tuple[tuple[Any, str], ...] = (
    (SqlCatalog, "create_table"),
    (MetastoreCatalog, "_write_metadata"),
    (Ledger, "_add"),
)


def servant() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.victims"])
    return context


def run(context: ForkServerContext, target: Callable[..., None], *arguments: Any) -> int:
    """Run one child to its end; its exit code (minus the signal that killed it)."""
    child = context.Process(target=target, args=arguments)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def publish_until(home: Path, days: Mapping[date, Day], moment: int, log: Path) -> None:
    """Publish, and be killed at the `moment`-th moment (0: never); each that passed is a line of `log`."""
    passed = 0

    def step(what: str) -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a") as lines:
            lines.write(f"{what}\n")

    for owner, name in _BEFORE:
        _wrap(owner, name, before=partial(step, f"before {name}"))
    for owner, name in _AFTER:
        _wrap(owner, name, after=partial(step, f"after {name}"))
    Shop(home).publish(days)
    step("at the end")


def _wrap(
    owner: Any, name: str, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
) -> None:
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        before()
        result = function(*arguments, **options)
        after()
        return result

    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapped) if is_static else wrapped)


def run_on_a_full_disk(home: Path, days: Mapping[date, Day]) -> None:
    """Run a whole job while no byte can be written to any file."""
    _exit_with_reason(lambda: _with_limited_files(0, lambda: Shop(home).publish(days)))


def publish_on_a_small_disk(home: Path, days: Mapping[date, Day], largest_file: int) -> None:
    """Stage, and then publish while no file may grow past `largest_file` bytes."""
    shop = Shop(home)
    attempt = shop.open(days)
    writes = shop.stage(days, attempt)
    _exit_with_reason(
        lambda: _with_limited_files(largest_file, lambda: publish(shop.lake, shop.ledger, "sales", writes, attempt))
    )


def _with_limited_files(largest_file: int, work: Callable[[], object]) -> None:
    """The kernel refuses what goes beyond the limit, in the middle of a write, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    work()


def publish_at_the_same_time(home: Path, days: Mapping[date, Day], barrier: Barrier) -> None:
    """Open, stage, wait for the other process, publish."""
    shop = Shop(home)
    attempt = shop.open(days)
    writes = shop.stage(days, attempt)
    barrier.wait()
    _exit_with_reason(lambda: publish(shop.lake, shop.ledger, "sales", writes, attempt))


def publish_one_by_one(home: Path, days: Mapping[date, Day], barrier: Barrier) -> None:
    """Wait for the other process, then publish day after day."""
    barrier.wait()
    for when, content in days.items():
        Shop(home).publish({when: content})


def open_attempts(home: Path, count: int, barrier: Barrier, tokens: Path) -> None:
    """Wait for the other process, then open attempts; their tokens go to a file."""
    barrier.wait()
    ledger = Shop(home).ledger
    opened = [ledger.open_attempt("sales", [date(2024, 1, 1)]).token for _ in range(count)]
    tokens.write_text(" ".join(map(str, opened)))


def _exit_with_reason(work: Callable[[], object]) -> None:
    try:
        work()
    except PlumblineError as error:
        assert error.exit_code in (EXIT_TRANSIENT, EXIT_SUPERSEDED), error
        os._exit(error.exit_code)
    except OSError:
        os._exit(EXIT_TRANSIENT)
