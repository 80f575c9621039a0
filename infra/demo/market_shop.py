"""The demo's second shop: simulated people on the catalogue of the first, whose search box shows them hints.

No public log names people, hints and queries, so what AIGQ learns of can be seen in the market alone. It is a shop of
its own, in a folder of its own: none of its figures stands beside real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess

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


class MarketLog:
    """The log of the shop beside `first`, and its landing folder; one that is there stays.

    The market writes it in the catalogue that `first` has ingested, in a process beside whatever else is done.
    """

    def __init__(self, shop: Profile, first: Profile) -> None:
        self._shop, self._first = shop, first
        self._log, self._draft = shop.home / "log", shop.landing.with_name("landing.part")
        self._said = shop.home / "demo" / "logs" / "market.log"
        self._market: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the market, once."""
        if self._shop.landing.is_dir() or self._market is not None:
            return
        for folder in (self._log, self._draft):
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(self._said.parent)
        command = processes.python("spark_jobs", "market", "simulate", *_LOG, "--folder", str(self._log))
        environment = {**processes.inherited(), "PLUMBLINE__HOME": str(self._first.home)}
        with self._said.open("wb") as output:
            self._market = subprocess.Popen(
                command, cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def land(self) -> None:
        """Wait for the market, and make the landing folder of its log.

        Raises:
            PlumblineError: the market could not write it.
        """
        self.begin()
        if self._market is None:
            return
        if code := self._market.wait():
            raise PlumblineError(
                "The market could not write the log of the second shop.",
                where=str(self._said),
                why=f"It ended with exit code {code}; its last lines say more.",
                do="Mend the cause and run `make demo` again: what is committed is not done twice.",
            )
        make_folder(self._draft)
        for table in _CATALOGUE:
            shutil.copytree(self._first.landing / table, self._draft / table)
        for table in _LOGGED:
            (self._log / table).rename(self._draft / table)
        self._draft.rename(self._shop.landing)
        shutil.rmtree(self._log)

    def close(self) -> None:
        """Stop the market where it is still at work."""
        if self._market is not None and self._market.poll() is None:
            processes.stop([self._market.pid])
