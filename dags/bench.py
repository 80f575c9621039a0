"""`nearline`: how long after an event its hints are online, at 50 events a second, every step as Airflow runs it.

The model is that of the installation's newest evaluation of `query_rec`; who does what is simulated, and lands in a
small file every five seconds. What Airflow itself takes between tasks is not in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from common.pipelines import load_pipeline
from infra.lake import Lake
from infra.profile import CHECKOUT, Profile, load_profile
from infra.systems import stages_of

SYSTEM, JOB, MODEL = "query_rec", "nearline_hints", "query_rec"
_RATE, _FILE_SECONDS = 50, 5
_ACTIVE = 1000  # people at a time; each does something every 20 seconds, ten times on average
_TICKS = 3


def bench_nearline() -> dict[str, Any]:
    """Seconds from an event to its person's new hints, at the 95th percentile, beside the bar: the interval and 60 s.

    Counted are the events of those who are written for, from the tick before on: also those that led to their newest.
    """
    installed = load_profile()
    evaluations = sorted(stages_of(installed, SYSTEM).glob("*/evaluate/model/hint_writer.json"), key=_changed)
    if not evaluations:
        return {"skipped": f"no run of align_{SYSTEM} has left a model in {stages_of(installed, SYSTEM)}"}
    interval = 60.0 * load_pipeline(SYSTEM, "demo").job(JOB).minutes
    with TemporaryDirectory() as folder, _installation(Path(folder), evaluations[-1].parents[1]) as profile:
        feeder = _Feeder(profile.landing)
        feeder.start()
        ticks = [_tick(profile, feeder.begun + interval * number) for number in range(1, _TICKS + 1)]
        feeder.stop()
        waits, signals = _waits(profile, feeder.done, ticks)
    p95 = float(np.percentile(waits, 95))
    return {
        "ours": p95,
        "peer": interval + 60,
        "unit": "s",
        "runs": _TICKS,
        "origin": "simulated",
        "events_per_second": len(feeder.done) / (feeder.ended - feeder.begun),
        "interval": interval,
        "events": len(waits),
        "signals": len(signals),
        "median": float(np.median(waits)),
        "p95_of_signals": float(np.percentile(signals, 95)),
        "ticks": ticks,
    }


def _changed(file: Path) -> float:
    return file.stat().st_mtime


@contextmanager
def _installation(folder: Path, evaluation: Path) -> Iterator[Profile]:
    """One of its own, with the catalogue of the evaluated model, which is its champion."""
    places = {"PLUMBLINE__HOME": str(folder / "home"), "PLUMBLINE__LANDING": str(folder / "landing")}
    before = dict(os.environ)
    os.environ.update(places)
    try:
        profile = load_profile()
        for table in ("items", "events", "searches"):
            (profile.landing / table).mkdir(parents=True)
        shutil.copy(evaluation / "model" / "items.parquet", profile.landing / "items")
        _run("-m", "spark_jobs", "items")
        _promote(profile, evaluation, folder / "evaluate")
        yield profile
    finally:
        os.environ.clear()
        os.environ.update(before)


def _promote(profile: Profile, evaluation: Path, out: Path) -> None:
    """Register and promote what an evaluation left, of whose tables this installation has none."""
    from registry import packaging
    from registry.promotions import Promotions
    from registry.runs import log_stage

    shutil.copytree(evaluation, out)
    spec = json.loads((out / "spec.json").read_text())
    (out / "spec.json").write_text(json.dumps({**spec, "out": str(out), "tables": {}, "artifacts": {}}))
    version = packaging.register(profile, MODEL, log_stage(profile, out, out), out, out)
    ledger = Promotions(profile)
    ledger.promote(MODEL, version, champion=None, who="bench", report=None, override=True, reason="a benchmark")


class _Feeder(threading.Thread):
    """Writes what people do as files, until it is stopped. `done`: time and person of each event."""

    def __init__(self, landing: Path) -> None:
        super().__init__(daemon=True)
        self.begun, self.ended = time.time(), 0.0
        self.done: list[tuple[float, str]] = []
        self._landing, self._random, self._over, self._people = landing, Random(0), threading.Event(), 0  # noqa: S311
        self._items = pq.read_table(landing / "items")["item_id"].to_pylist()
        self._active = [self._someone() for _ in range(_ACTIVE)]

    def run(self) -> None:
        """File after file, at the times that they are due."""
        number = 0
        while not self._over.wait(max(0.0, self.begun + (number + 1) * _FILE_SECONDS - time.time())):
            due = time.time()
            moments = sorted(self._random.uniform(due - _FILE_SECONDS, due) for _ in range(_RATE * _FILE_SECONDS))
            events, searches = list[dict[str, str]](), list[dict[str, str]]()
            for moment in moments:
                (searches if self._random.random() < 0.1 else events).append(self._act(moment))
            words = {"source": "typed", "query": "gel pens"}
            asked = [
                {"request_id": f"{number}-{n}", "search_time": row["event_time"], "user_id": row["user_id"], **words}
                for n, row in enumerate(searches)
            ]
            self._write(f"events/{number:06d}.jsonl", [{**row, "event_type": "view"} for row in events])
            self._write(f"searches/{number:06d}.jsonl", asked)
            number += 1

    def stop(self) -> None:
        """No file more."""
        self._over.set()
        self.join()
        self.ended = time.time()

    def _someone(self) -> str:
        self._people += 1
        return f"u{self._people}"

    def _act(self, moment: float) -> dict[str, str]:
        place = self._random.randrange(_ACTIVE)
        user = self._active[place]
        if self._random.random() < 0.1:
            self._active[place] = self._someone()
        self.done.append((moment, user))
        time_of = datetime.fromtimestamp(moment, UTC).isoformat()
        return {"user_id": user, "item_id": self._random.choice(self._items), "event_time": time_of}

    def _write(self, name: str, rows: list[dict[str, str]]) -> None:
        draft = (self._landing / name).with_name(f".{Path(name).name}")
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
        draft.rename(self._landing / name)


def _tick(profile: Profile, due: float) -> dict[str, float]:
    """One run of the job, begun when it is due or, where the one before took longer, at once; seconds of its steps."""
    time.sleep(max(0.0, due - time.time()))
    begun, spans = time.time(), dict[str, float]()
    run = ("--job", JOB, "--system", SYSTEM, "--run-id", str(due), "--partition", f"{datetime.now(UTC):%Y-%m-%d}")
    steps = {
        "prepare": ("-m", "dags.steps.prepare_job", *run),
        "stage": ("-m", "dags.steps.run_stage", "run", *run),
        "online": ("-m", "feature_store", "push", "user_hints"),
    }
    for name, command in steps.items():
        start = time.time()
        _run(*command)
        spans[name] = time.time() - start
    return {"begun": begun, "ended": time.time(), **spans}


def _run(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")


def _waits(
    profile: Profile, done: list[tuple[float, str]], ticks: list[dict[str, float]]
) -> tuple[list[float], list[float]]:
    """Of the events that each run has told hints of, and of their signals: seconds until these were online."""
    files = [file.path for file in Lake(profile).files("user_hints")]
    rows = pq.read_table(files, columns=["user_id", "signal_time", "available_at"]).to_pylist()
    waits, signals = list[float](), list[float]()
    for number, tick in enumerate(ticks):
        since = ticks[number - 1]["begun"] if number else 0.0
        own = [row for row in rows if tick["begun"] < row["available_at"].timestamp() <= tick["ended"]]
        newest = {row["user_id"]: row["signal_time"].timestamp() for row in own}
        signals += [tick["ended"] - moment for moment in newest.values()]
        # What landed after the tick before had begun, as far as it was read.
        waits += [
            tick["ended"] - at for at, user in done if user in newest and since - _FILE_SECONDS < at <= newest[user]
        ]
    return waits, signals
