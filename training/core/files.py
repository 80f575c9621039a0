"""Files that are either whole or not there: written beside their place, synced to disk, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
    _sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as sorted, indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `path` (replacing what is there) when the block ends without an error.

    No folder can be renamed over a full one, so the old one steps aside first. Killed at any point, `found` finds the
    old one or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch
        for file in scratch.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        _sync_folder(scratch)
        _replace(path, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process is in a block of the same `path`; a process that is killed holds nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def found(path: Path) -> Path:
    """`path`, with the folder back in it that a killed `new_folder` has put aside; several processes may ask."""
    if not path.exists():
        with suppress(FileNotFoundError):  # nothing was put aside, or another process was faster
            _aside(path).replace(path)
    return path


def _replace(path: Path, new: Path) -> None:
    aside = _aside(path)
    if found(path).exists():
        shutil.rmtree(aside, ignore_errors=True)  # only of use where the path is empty
        path.replace(aside)
    new.replace(path)
    _sync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
