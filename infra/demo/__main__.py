"""Runs the whole chain under the real scheduler and leaves nothing running."""

from __future__ import annotations

import signal
import time
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from infra import processes
from infra.airflow_client import AirflowClient
from infra.airflow_env import DAILY_CHAIN, FIRST_DAG
from infra.console import new_console
from infra.demo import summary
from infra.demo.landing import LandedDays, landed_days
from infra.demo.market_shop import MarketLog, market_shop
from infra.demo.screen import Screen
from infra.demo.watch import Chain, RunFailed, clocked, follow, tagged
from infra.errors import exit_with_reason
from infra.profile import Profile, SampleSettings, load_profile
from infra.services import alone, start_airflow


def main() -> int:
    """Show the shop of the profile, and beside the bundled one a second, which shows hints."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    console = new_console()
    profile = load_profile()
    try:
        shop = market_shop(profile)
        with closing(MarketLog(shop, profile)) if shop else nullcontext() as log:
            _show(profile, console, log)
            if shop and log:
                console.rule("a second shop: simulated people, who are shown hints in the search box")
                log.land()
                _show(shop, console)
    except KeyboardInterrupt:
        console.print(
            "interrupted: all that was started is stopped; `make demo` goes on from what is committed", soft_wrap=True
        )
        return 130
    return 0


def _show(profile: Profile, console: Console, beside: MarketLog | None = None) -> None:
    """Start, trigger, watch, stop, report; `beside` begins when there is a catalogue."""
    days = landed_days(profile.landing)
    profile = _demo_profile(profile, days)
    console.print(f"Plumbline demo: {profile.landing}, days {days.first} to {days.last}", markup=False, soft_wrap=True)
    console.print(f"state in {profile.home}", markup=False, soft_wrap=True)
    console.print("starting Airflow (scheduler, API server, DAG processor, triggerer) on loopback ...", soft_wrap=True)
    began = time.monotonic()
    with alone(profile):
        chain, failure, started = _run(profile, days, console, beside)
    figures = summary.collect(profile, chain, started, time.monotonic() - began)
    summary.show(figures, summary.write(figures, profile.home / "demo"), console)
    if failure:
        raise failure


def _run(
    profile: Profile, days: LandedDays, console: Console, beside: MarketLog | None
) -> tuple[Chain, RunFailed | None, float]:
    """Start Airflow, follow the chain to its end, stop; returns the chain, what failed and stopped nothing, and the
    seconds that the start took."""
    began = time.monotonic()
    services = start_airflow(profile, profile.home / "demo" / "logs")
    started = time.monotonic() - began
    try:
        return *_follow_chain(profile, days, console, services, beside), started
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C waits for the end of all services
            signal.signal(number, signal.SIG_IGN)
        processes.stop([service.pid for service in services])


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _demo_profile(profile: Profile, days: LandedDays) -> Profile:
    """On a free port, approved by flag, not by the clock; the split is cut where the landed events say."""
    ports = profile.ports.model_copy(update={"airflow": processes.free_port(profile.ports.airflow)})
    airflow = profile.airflow.model_copy(update={"approve_by_flag": True, "follow_clock": False})
    samples = SampleSettings(valid_from=days.valid_from, test_from=days.test_from)
    landing = Path(profile.landing).resolve()
    return profile.model_copy(update={"ports": ports, "airflow": airflow, "samples": samples, "landing": landing})


def _follow_chain(
    profile: Profile, days: LandedDays, console: Console, services: list[processes.Service], beside: MarketLog | None
) -> tuple[Chain, RunFailed | None]:
    client = AirflowClient.of(profile)
    waiting = clocked(profile)
    dags = (*tagged(client, DAILY_CHAIN), *waiting)
    chain = Chain(datetime.now(UTC), days.last.isoformat(), dags, client.makers())
    for dag in chain.dags:
        client.unpause(dag)
    client.trigger(FIRST_DAG, days.last, {"from": days.first.isoformat()})

    def watch(chain: Chain) -> None:
        screen.show(chain)
        for dag in [dag for dag, models in waiting.items() if chain.over >= models]:
            del waiting[dag]
            client.trigger(dag, days.last)
        if beside and FIRST_DAG in chain.over:
            beside.begin()

    with Screen(console) as screen:
        failure = follow(client, chain, watch, lambda: processes.check_alive(services))
    return chain, failure


if __name__ == "__main__":
    exit_with_reason(main)
