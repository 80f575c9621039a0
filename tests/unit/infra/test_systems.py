from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.pipelines import owner, systems
from infra.profile import Profile, load_profile
from infra.systems import declared_systems, oldest_first, stages_of
from tests.pipeline_kit import TRAINING


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Systems by what is the matter with them."""
    stage = {"name": "fit", "time_limit_minutes": 5, "retry": "data"}
    demo = {"training": TRAINING, "stages": [stage | {"config": {"demo": {}}}]}
    bench = {"training": TRAINING, "stages": [stage | {"config": {"bench": {}}}]}
    for system, values in {"good": demo, "faulty": demo | {"models": {"m": "none"}}, "unset": bench}.items():
        (tmp_path / system).mkdir()
        (tmp_path / system / "pipeline.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def _profile(*systems: str) -> Profile:
    return load_profile("local", {"PLUMBLINE__SYSTEMS": json.dumps(systems or None)})


def test_all_systems_of_the_preset_are_used_but_for_the_faulty_ones(root: Path) -> None:
    usable, (fault,) = declared_systems(_profile(), root)
    assert [pipeline.system for pipeline in usable] == ["good"]
    assert "faulty/pipeline.yaml" in fault.where


def test_a_system_that_is_named_must_have_a_stage_under_the_preset(root: Path) -> None:
    usable, (fault,) = declared_systems(_profile("good", "unset"), root)
    assert [pipeline.system for pipeline in usable] == ["good"]
    assert "unset has no stage under the preset 'demo'" in fault.what
    assert declared_systems(_profile("good"), root)[1] == []


def test_no_job_takes_the_name_of_a_dag_file(root: Path) -> None:
    declared = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())
    stage = declared["stages"][0] | {"name": "list"}
    job = {"name": "quality_report", "notes": "### x", "deadline_minutes": 5, "every": "1h", "stage": stage}
    (root / "good" / "pipeline.yaml").write_text(yaml.safe_dump(declared | {"jobs": [job]}))
    _, (fault,) = declared_systems(_profile("good"), root)
    assert "quality_report" in fault.what
    assert "dags/quality_report.py" in fault.where


def _declare(root: Path, system: str, **values: Any) -> None:
    declared = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())
    (root / system / "pipeline.yaml").write_text(yaml.safe_dump(declared | values))


def test_a_system_that_waits_for_what_nobody_makes_is_refused_alone(root: Path) -> None:
    _declare(root, "faulty")
    _declare(root, "unset", training=TRAINING | {"after": ["challenger(nobody)"]})
    usable, (fault,) = declared_systems(_profile(), root)
    assert [pipeline.system for pipeline in usable] == ["faulty", "good"]
    assert "waits for challenger(nobody)" in fault.why


def test_while_a_declaration_is_faulty_nobody_is_blamed_for_waiting_for_its_models(root: Path) -> None:
    _declare(root, "unset", training=TRAINING | {"after": ["challenger(m)"]})
    usable, (fault,) = declared_systems(_profile(), root)
    assert [pipeline.system for pipeline in usable] == ["good", "unset"]
    assert "faulty/pipeline.yaml" in fault.where


def test_a_system_may_wait_for_a_model_of_one_that_does_not_run_here(root: Path) -> None:
    _declare(root, "unset", training=TRAINING | {"after": ["challenger(m)"]})
    stage = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())["stages"][0]
    _declare(root, "faulty", models={"m": "fit"}, stages=[stage | {"writes": {"artifact": True}}])
    usable, faults = declared_systems(_profile("unset", "unset"), root)
    assert ([pipeline.system for pipeline in usable], faults) == (["unset"], [])


def test_a_table_without_a_contract_and_a_model_that_nobody_makes_are_refused(root: Path) -> None:
    stage = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())["stages"][0]
    reads = {"tables": ["itmes"], "models": ["nobody"]}
    _declare(root, "faulty", stages=[stage | {"reads": reads}])
    (fault,) = declared_systems(_profile(), root)[1]
    assert "'itmes', which has no contract" in fault.why
    assert "'nobody', which no system makes" in fault.why


@pytest.mark.parametrize("named", [(), ("another", "good")])
@pytest.mark.parametrize("ran", ["another", "good"])
def test_a_new_system_takes_no_name_from_one_that_has_run_here(
    root: Path, tmp_path: Path, ran: str, named: tuple[str, ...]
) -> None:
    stage = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())["stages"][0] | {"writes": {"artifact": True}}
    (root / "another").mkdir()
    for system in ("another", "good"):
        _declare(root, system, models={"shared": "fit"}, stages=[stage])
    home = tmp_path / "home"
    stages_of(load_profile("local", {"PLUMBLINE__HOME": str(home)}), ran).mkdir(parents=True)
    environ = {"PLUMBLINE__HOME": str(home), "PLUMBLINE__SYSTEMS": json.dumps(named or None)}
    usable, faults = declared_systems(profile := load_profile("local", environ), root)
    assert [pipeline.system for pipeline in usable] == [ran]
    told = [fault for fault in faults if "promote_shared" in fault.what]
    assert [all(str(root / one) in fault.where for one in ("another", "good")) for fault in told] == [True]
    assert owner("shared", oldest_first(profile, systems(root)), root) == ran
