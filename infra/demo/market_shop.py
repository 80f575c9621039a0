"""The demo's second shop: simulated people on the catalogue of the first, whose search box shows them hints.

No public log names people, hints and queries, so what AIGQ learns of can be seen in the market alone. It is a shop of
its own, in a folder of its own: none of its figures stands beside real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from common.folders import make_folder
from infra import processes
from infra.errors import PlumblineError
from infra.profile import CHECKOUT, Profile, load_profile

SYSTEM = "query_rec"
_BUNDLED = CHECKOUT / "spark_jobs" / "sample_data" / "landing"
_CATALOGUE = ("items", "queries")
_LOGGED = ("events", "searches", "hint_exposures")
# A month of them: with fewer people the gate of the ranker finds too few hints to know its calibration.
_LOG = ("--scale", "demo", "--days", "30")


def market_shop(first: Profile) -> Profile | None:
    """The shop beside `first`; None where that is a shop of somebody's own, or one without query recommendation."""
    if first.landing.resolve() != _BUNDLED or (first.systems is not None and SYSTEM not in first.systems):
        return None
    home = first.home / "market"
    places = {
        "HOME": str(home),
        "LANDING": str(home / "landing"),
        "LANDING_ORIGIN": "simulated",
        "SYSTEMS": f"[{SYSTEM}]",
    }
    return load_profile(environ={**os.environ, **{f"PLUMBLINE__{name}": value for name, value in places.items()}})


def land(shop: Profile, first: Profile) -> None:
    """Write its landing folder, by the market in the catalogue that `first` has ingested; one that is there stays.

    Raises:
        PlumblineError: the market could not write its log.
    """
    if shop.landing.is_dir():
        return
    log, draft = shop.home / "log", shop.landing.with_name("landing.part")
    for folder in (log, draft):
        shutil.rmtree(folder, ignore_errors=True)
    _simulate(log, first, make_folder(shop.home / "demo" / "logs") / "market.log")
    make_folder(draft)
    for table in _CATALOGUE:
        shutil.copytree(first.landing / table, draft / table)
    for table in _LOGGED:
        (log / table).rename(draft / table)
    draft.rename(shop.landing)
    shutil.rmtree(log)


def _simulate(folder: Path, first: Profile, said: Path) -> None:
    command = processes.python("spark_jobs", "market", "simulate", *_LOG, "--folder", str(folder))
    environment = {**os.environ, "PLUMBLINE__HOME": str(first.home)}
    with said.open("wb") as output:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise PlumblineError(
            "The market could not write the log of the second shop.",
            where=str(said),
            why=f"It ended with exit code {done.returncode}; its last lines say more.",
            do="Mend the cause and run `make demo` again: what is committed is not done twice.",
        )
