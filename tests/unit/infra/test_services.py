from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infra import airflow_env, processes, services
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
