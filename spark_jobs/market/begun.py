"""A folder that appears whole or not at all, although its writer may be killed, and another may come with other wishes.

Beside the folder `LOG` lies `.LOG.begun` until it is there: what was ordered, a lock, and of each attempt a folder of
its own, as the workers of a killed one may write for a while.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from common.folders import make_folder
from infra.errors import DataError

_ORDER, _LOCK, _ATTEMPTS = "order.json", "lock", "attempt-*"
Order = Mapping[str, str | int]


@contextmanager
def begun(folder: Path, order: Order) -> Iterator[Path]:
    """A folder to write into. It takes the place of `folder`, which is new or empty, when the block ends without an
    error; else nothing is left of it.

    Raises:
        DataError: another run writes the same folder, or a killed one has begun it by another `order`; nothing was
            done.
    """
    beside = make_folder(folder.with_name(f".{folder.name}.begun"))
    with (beside / _LOCK).open("a") as lock:
        _require_alone(lock.fileno(), beside, folder)
        _require_same(beside, folder, order)
        for stopped in beside.glob(_ATTEMPTS):
            shutil.rmtree(stopped, ignore_errors=True)
        draft = beside / f"{_ORDER}.draft"
        draft.write_text(json.dumps(order, indent=1))
        draft.replace(beside / _ORDER)
        attempt = beside / _ATTEMPTS.replace("*", token_hex(8))
        attempt.mkdir()
        try:
            yield attempt
            if folder.is_dir():
                folder.rmdir()
            attempt.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _require_alone(lock: int, beside: Path, folder: Path) -> None:
    """A lock file that is gone was that of a run which has just ended."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = (beside / _LOCK).exists()
    except BlockingIOError:
        alone = False
    if not alone:
        raise DataError("Another run is writing this folder.", where=str(folder), do="Wait for it, or name another.")


def _require_same(beside: Path, folder: Path, order: Order) -> None:
    """A kill before the first attempt has left nothing that could be mixed up."""
    if not any(beside.glob(_ATTEMPTS)):
        return
    there = json.loads((beside / _ORDER).read_text())
    if others := [name for name in order if there.get(name) != order[name]]:
        raise DataError(
            "Another run has begun this folder by another order, and was stopped.",
            where=str(folder),
            why="; ".join(f"{name}: {there.get(name)} there, {order[name]} now" for name in others),
            do=f"Order the same again, name another folder, or remove {beside}.",
        )
