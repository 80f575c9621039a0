from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from infra.profile import Profile, load_profile
from infra.systems import declared_systems
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


def test_a_system_that_waits_for_what_nobody_makes_is_refused_alone(root: Path) -> None:
    path = root / "unset" / "pipeline.yaml"
    declared = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())
    path.write_text(yaml.safe_dump(declared | {"training": TRAINING | {"after": ["challenger(nobody)"]}}))
    usable, faults = declared_systems(_profile(), root)
    assert [pipeline.system for pipeline in usable] == ["good"]
    assert any("waits for challenger(nobody)" in fault.why for fault in faults)


def test_a_system_may_wait_for_a_model_of_one_that_does_not_run_here(root: Path) -> None:
    path = root / "unset" / "pipeline.yaml"
    declared = yaml.safe_load((root / "good" / "pipeline.yaml").read_text())
    path.write_text(yaml.safe_dump(declared | {"training": TRAINING | {"after": ["challenger(m)"]}}))
    maker = declared | {"models": {"m": "fit"}}
    maker["stages"][0]["writes"] = {"artifact": True}
    (root / "faulty" / "pipeline.yaml").write_text(yaml.safe_dump(maker))
    usable, faults = declared_systems(_profile("unset"), root)
    assert ([pipeline.system for pipeline in usable], faults) == (["unset"], [])
