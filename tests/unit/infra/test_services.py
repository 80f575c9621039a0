from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra import airflow_env, processes, services
from infra.airflow_client import AirflowClient
from infra.processes import ServiceFailed
from infra.profile import Profile, load_profile


def _profile(home: Path, **settings: str) -> Profile:
    return load_profile("local", {"PLUMBLINE__HOME": str(home), **settings})


def test_two_starts_on_one_state_folder_refuse_each_other(tmp_path: Path) -> None:
    with (
        services.alone(_profile(tmp_path)),
        pytest.raises(ServiceFailed, match="in use"),
        services.alone(_profile(tmp_path)),
    ):
        pass
    with services.alone(_profile(tmp_path)):  # and it is free again
        pass


def test_nothing_starts_on_a_state_folder_whose_services_are_up_and_down_stops_them(tmp_path: Path) -> None:
    sleeper = processes.start("sleeper", [sys.executable, "-c", "import signal; signal.pause()"], {}, tmp_path / "run")
    try:
        state = tmp_path / "run" / "services.json"
        state.write_text(json.dumps({"sleeper": [sleeper.pid, sleeper.born]}))
        with pytest.raises(ServiceFailed, match="make down"), services.alone(_profile(tmp_path)):
            pass
        services.down(_profile(tmp_path))
        assert not sleeper.alive()
        with services.alone(_profile(tmp_path)):
            pass
    finally:
        processes.stop([sleeper.pid], grace=0)


def test_a_profile_of_several_machines_is_not_started_on_this_one(tmp_path: Path) -> None:
    profile = _profile(tmp_path, PLUMBLINE__LAUNCHER__KIND="kubernetes")
    with pytest.raises(ServiceFailed, match="infra/deploy"):
        services.start_airflow(profile, tmp_path)


BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
BEFORE, AFTER = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:09+00:00"
FILES = {path.name for path in airflow_env.dag_files()} - {airflow_env.NO_DAG}


class Started(AirflowClient):
    """Has read each of these files at that time; `broken` at that time too, in vain."""

    def __init__(self, read: dict[str, str | None], broken: dict[str, str] | None = None) -> None:
        super().__init__("http://127.0.0.1:1", "admin", "")
        self.read, self.broken = read, broken or {}

    def health(self) -> dict[str, Any]:
        return {part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")}

    def dags(self) -> list[dict[str, Any]]:
        return [{"fileloc": f"/x/{file}", "last_parsed_time": moment} for file, moment in self.read.items()]

    def import_errors(self) -> list[dict[str, Any]]:
        trace = 'Traceback:\n  File "x.py", line 3\n    chain(a, b\n         ^\nSyntaxError: never closed\n'
        return [{"filename": f, "timestamp": t, "stack_trace": trace} for f, t in self.broken.items()]


def test_airflow_is_ready_when_it_has_read_every_dag_file_since_its_start() -> None:
    assert services._ready(Started(dict.fromkeys(FILES, AFTER)), BEGAN)
    for file in FILES:
        assert not services._ready(Started(dict.fromkeys(FILES - {file}, AFTER)), BEGAN)
        for earlier in (BEFORE, None):
            assert not services._ready(Started(dict.fromkeys(FILES, AFTER) | {file: earlier}), BEGAN)


def test_a_file_that_was_broken_at_an_earlier_start_is_waited_for_and_one_that_still_is_stops_the_start() -> None:
    broken, read = "features.py", dict.fromkeys(FILES, AFTER)
    assert not services._ready(Started(read | {broken: BEFORE}, {broken: BEFORE}), BEGAN)
    assert services._ready(Started(read, {broken: BEFORE}), BEGAN)
    with pytest.raises(ServiceFailed) as failure:
        services._ready(Started(read | {broken: BEFORE}, {broken: AFTER}), BEGAN)
    assert (failure.value.where, failure.value.why) == (broken, "SyntaxError: never closed")


def test_who_starts_the_services_is_told_where_a_report_comes_from_while_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = _profile(tmp_path)
    airflow_env.prepare(profile)
    services._tell(profile)
    assert "none yet: the DAG quality_report makes it" in capsys.readouterr().out
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").touch()
    services._tell(profile)
    assert "none yet" not in capsys.readouterr().out
