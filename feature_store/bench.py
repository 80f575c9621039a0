"""`lookup`: how soon Feast's own feature server answers with the hints of a person, and with those of a trigger.

Requests come at set times whether or not those before are answered, over loopback and from the cores that the server
has: what one waits for the others counts. Each asks for one key, persons and triggers in turns.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.definitions import TRIGGER_QUERIES, USER_HINTS
from feature_store.index import key_of, publish_index
from feature_store.push import push
from feature_store.serve import HOST
from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake, publish
from infra.ledger import Ledger
from infra.partitions import PartitionWrite, run_key
from infra.profile import CHECKOUT, Profile, load_profile

_PEOPLE, _TRIGGERS, _PLACES = 20_000, 5_000, 20
_RATE, _SECONDS, _BAR = 50, 60, 25.0  # requests a second, seconds, milliseconds
_STEPS, _STEP_SECONDS = (75, 100, 150, 200, 300, 400), 10


def bench_lookup() -> dict[str, Any]:
    """Milliseconds until an answer at the 99th percentile of 50 requests a second, beside the bar of 25.

    `saturation`: the first rate at which the 99th percentile is over the bar, or an answer is wrong; `rates` has those
    below it too.
    """
    with TemporaryDirectory() as folder:
        profile = load_profile(
            "local", environ={"PLUMBLINE__HOME": folder, "PLUMBLINE__PORTS__FEAST": str(_free_port())}
        )
        version = _fill(profile)
        with _server(profile) as address:
            asyncio.run(_asked(address, version, _RATE, 5))  # the first answers wait for imports
            found = asyncio.run(_asked(address, version, _RATE, _SECONDS))
            rates = dict[str, dict[str, float]]()
            for rate in _STEPS:
                rates[str(rate)] = told = _summary(asyncio.run(_asked(address, version, rate, _STEP_SECONDS)))
                if told["p99"] > _BAR or told["errors"]:
                    break
    told = _summary(found)
    over = [int(rate) for rate, own in rates.items() if own["p99"] > _BAR or own["errors"]]
    return {
        "ours": told["p99"],
        "peer": _BAR,
        "unit": "ms",
        "runs": 1,
        "origin": "simulated",
        "requests_per_second": _RATE,
        "people": _PEOPLE,
        "triggers": _TRIGGERS,
        **told,
        **{f"{key}_p99": _summary([one for one in found if one[0] == key])["p99"] for key in ("person", "trigger")},
        "saturation": over[0] if over else f"above {_STEPS[-1]}",
        "rates": rates,
    }


def _summary(found: list[tuple[str, float, bool]]) -> dict[str, float]:
    spans = [1000 * seconds for _, seconds, _ in found]
    told = {f"p{share}": float(np.percentile(spans, share)) for share in (50, 95, 99)}
    return {**told, "slowest": max(spans), "errors": float(sum(not good for _, _, good in found))}


async def _asked(address: str, version: str, rate: int, seconds: int) -> list[tuple[str, float, bool]]:
    """Of each request the kind of its key, seconds from when it was due to its answer, and whether that was right."""
    random = Random(rate)  # noqa: S311

    async def ask(client: httpx.AsyncClient, kind: str, body: dict[str, Any], due: float) -> tuple[str, float, bool]:
        try:
            answer = await client.post("/get-online-features", json=body)
            good = answer.status_code == 200 and bool(answer.json()["results"][1]["values"][0])
        except httpx.HTTPError:
            good = False
        return kind, time.perf_counter() - due, good

    async with httpx.AsyncClient(base_url=address, timeout=10, limits=httpx.Limits(max_connections=64)) as client:
        begun, asked = time.perf_counter(), []  # what opening the client takes is none of the server's
        for number in range(rate * seconds):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(ask(client, *_question(random, version, number), due)))
        return list(await asyncio.gather(*asked))


def _question(random: Random, version: str, number: int) -> tuple[str, dict[str, Any]]:
    if number % 2:
        key = key_of(version, "item", f"i{random.randrange(_TRIGGERS)}")
        return "trigger", {"feature_service": "trigger_queries_v1", "entities": {TRIGGER_QUERIES.entity.key: [key]}}
    user = f"u{random.randrange(_PEOPLE)}"
    return "person", {"feature_service": "user_hints_v1", "entities": {USER_HINTS.entity.key: [user]}}


def _fill(profile: Profile) -> str:
    """Hints of many people and the index of a night, online; the version of the index."""
    now = datetime.now(UTC)
    day, words = now.date(), [f"query number {n} of the shop" for n in range(2000)]
    fixed = {"hint_date": day, "available_at": now, "signal_time": now - timedelta(minutes=1), "model_version": "1"}
    lists = {"sources": ["model"] * 30, "lists": [n // 10 for n in range(30)], "trigger_actions": ["view"] * 3}
    people = [
        {
            **fixed,
            **lists,
            "user_id": f"u{n}",
            "signal_id": str(n),
            "queries": [words[(n + k) % 2000] for k in range(30)],
        }
        | {"trigger_contents": [f"i{n}", f"i{n + 1}", f"i{n + 2}"]}
        for n in range(_PEOPLE)
    ]
    scores = {"score": 0.5, "relevance": 0.5, "worth": 0.5, "people": 1, "model_version": "1", "ranker_version": "1"}
    triggers = [
        {
            "index_date": day,
            "kind": "item",
            "trigger": f"i{n}",
            "place": place,
            "query": words[(n + place) % 2000],
            **scores,
        }
        for n in range(_TRIGGERS)
        for place in range(1, _PLACES + 1)
    ]
    _publish(profile, "user_hints", people)
    _publish(profile, "trigger_queries", triggers)
    push(profile, USER_HINTS)
    index = publish_index(profile)
    assert index is not None
    return index.version


def _publish(profile: Profile, table: str, rows: list[dict[str, Any]]) -> None:
    lake, ledger, contract = Lake(profile), Ledger(profile), load_contract(table)
    day = rows[0][contract.partition]
    attempt, key = ledger.open_attempt(table, [day]), run_key(table, day, [], {}, 1)
    path = lake.staging(table, key, day, attempt.token) / "part-0.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(contract)), path, coerce_timestamps="us")
    publish(lake, ledger, table, [PartitionWrite(day, key, (str(path),), len(rows), len(rows))], attempt)


@contextmanager
def _server(profile: Profile) -> Iterator[str]:
    """`python -m feature_store serve`, until it is left; its address."""
    address = f"http://{HOST}:{profile.ports.feast}"
    places = {"PLUMBLINE__HOME": str(profile.home), "PLUMBLINE__PORTS__FEAST": str(profile.ports.feast)}
    command = [sys.executable, "-m", "feature_store", "serve"]
    with subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, **places}) as process:
        try:
            while not _is_up(address):
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with {process.returncode}")
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()


def _is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])
