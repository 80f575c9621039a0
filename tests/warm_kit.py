"""A parent that forks training stages, as `make up` has one: most of a small stage's time would be its imports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra import processes, warm
from infra.launch import build_environment


@contextmanager
def warm_parent(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Inside, a parent forks the stages of whoever has the yielded variables: `environment`, and its folder."""
    own = {**environment, warm.FOLDER: str(folder)}
    argv = processes.python("infra.warm", "training", str(folder))
    parent = processes.start("warm-training", argv, {**own, **build_environment()}, folder)
    try:
        yield own
    finally:
        processes.stop([parent.pid])
