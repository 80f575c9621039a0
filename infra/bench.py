"""The bench harness: `python -m infra.bench [NAME]` measures and writes `<home>/bench/<name>.json`.

A benchmark is a function `bench_<name>() -> dict` in a `bench.py` of any room. It returns `ours`, `peer` (absent
where there is no yardstick), `unit`, `runs`, and whatever else belongs to the figure; or `skipped` alone, with the
reason, where it lacks data: larger data sets are in the folder `PLUMBLINE_SHARED_DATA` (the profile's `shared_data`).
It is found by its name in the source and runs in a process of its own: this module imports no room, and a room need
not import this one.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from infra.errors import exit_with_reason
from infra.launch import CPU_SETTINGS
from infra.profile import CHECKOUT, Profile, code_commit, load_profile

_ROOMS = ("infra", "spark_jobs", "feature_store", "training", "mlflow/registry", "dags")
_PREFIX = "bench_"
_T = TypeVar("_T")


def in_turns(runs: int, ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of `ours` and `peer`, after a warm-up, in turns, so that a busy machine is busy for both."""
    spans: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for measured, work in zip(spans, (ours, peer), strict=True):
            start = time.perf_counter()
            work()
            if turn > 0:
                measured.append(time.perf_counter() - start)
    return statistics.median(spans[0]), statistics.median(spans[1])


def measured(work: Callable[[], _T]) -> tuple[_T, float, float]:
    """What it returns, its seconds, and the most memory, in GiB, that this process and its children held: what they
    share is counted for each."""
    over, held = threading.Event(), [_held()]

    def watch() -> None:
        while not over.wait(0.2):
            held.append(_held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        found = work()
        seconds = time.perf_counter() - begun
        return found, seconds, max(*held, _held()) / 2**30
    finally:
        over.set()
        watcher.join()


def _held() -> int:
    own, held = psutil.Process(), 0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss
    return held


def benchmarks() -> dict[str, str]:
    """Every benchmark's name and module, read off the sources without importing them."""
    found = {}
    for file in (file for room in _ROOMS for file in sorted((CHECKOUT / room).rglob("bench.py"))):
        module = ".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removeprefix("mlflow.")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith(_PREFIX):
                found[node.name.removeprefix(_PREFIX)] = module
    return found


def measure(profile: Profile, name: str, module: str) -> dict[str, Any]:
    """Run one benchmark in this process and write its result with machine and commit; one that skips writes none."""
    figures = getattr(importlib.import_module(module), f"{_PREFIX}{name}")()
    if "skipped" in figures:
        return {"name": name, **figures}
    ours, peer = figures["ours"], figures.get("peer")
    result = {
        "name": name,
        **figures,
        "peer": peer,
        "ratio": ours / peer if peer else None,
        "machine": machine(),
        "commit": code_commit(profile),
    }
    target = profile.home / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    return result


def machine() -> str:
    """Processor, cores and memory in words; a figure means nothing without them."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def main() -> int:
    """Run the named benchmark, or all of them, one after the other, each under the allocator settings of training."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench", description="Measure; results go to build/bench.")
    known = benchmarks()
    parser.add_argument("name", nargs="?", choices=sorted(known), metavar="NAME", help="one benchmark; without it, all")
    parser.add_argument("--here", action="store_true", help="in this process, not in one of its own")
    arguments = parser.parse_args()
    if arguments.here and arguments.name is not None:
        sys.stdout.write(_line(measure(load_profile(), arguments.name, known[arguments.name])) + "\n")
        return 0
    names = [arguments.name] if arguments.name else list(known)
    command = [sys.executable, "-m", "infra.bench", "--here"]
    shared = load_profile().shared_data
    data = {} if shared is None else {"PLUMBLINE_SHARED_DATA": str(shared)}
    environment = {**os.environ, **CPU_SETTINGS, **data}
    codes = [subprocess.call([*command, name], cwd=CHECKOUT, env=environment) for name in names]
    return max(codes, key=abs, default=0)  # one that was killed has a negative code


def _line(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"{result['name']}: skipped, {result['skipped']}"
    ours = f"{result['name']}: {result['ours']:.3g} {result['unit']}"
    if result["peer"] is None:
        return ours
    return f"{ours}, peer {result['peer']:.3g}, ratio {result['ratio']:.3g}"


if __name__ == "__main__":
    exit_with_reason(main)
