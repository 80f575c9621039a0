"""Stage declarations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from dags.pipelines import PipelineError, Preset, load_pipeline
from infra.profile import CHECKOUT


def stage(name: str, tables: list[str], artifacts: list[str], **more: Any) -> dict[str, Any]:
    reads = {"tables": tables, "artifacts": artifacts}
    base = {"name": name, "reads": reads, "writes": {"artifact": True}, "time_limit_minutes": 5, "retry": "transient"}
    return {**base, "config": {"demo": {}}, **more}


def declare(root: Path, *stages: dict[str, Any]) -> Path:
    (root / "toy").mkdir()
    (root / "toy" / "pipeline.yaml").write_text(yaml.safe_dump({"dag": "d", "model": "m", "stages": list(stages)}))
    return root


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_declaration_of_the_checkout_is_sound_under_every_preset(preset: Preset) -> None:
    systems = [path.parent.name for path in (CHECKOUT / "training").glob("*/pipeline.yaml")]
    assert systems
    for system in systems:
        assert load_pipeline(system, preset).stages


@pytest.mark.parametrize("preset", get_args(Preset))
def test_the_nightly_stage_has_every_preset_and_is_no_part_of_a_training_run(preset: Preset) -> None:
    pipeline = load_pipeline("generative_rec", preset)
    assert preset in pipeline.nightly_stage().config
    assert "recommendations" not in {table for stage in pipeline.stages for table in stage.writes.tables}
    assert "nightly" not in pipeline.model_dump(mode="json", by_alias=True), "it would name every run anew"


def test_a_system_without_a_nightly_stage_says_so(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], []))
    with pytest.raises(PipelineError, match="toy has no nightly stage"):
        load_pipeline("toy", "demo", root).nightly_stage()


def test_a_run_pins_the_tables_that_come_from_outside_and_no_others(tmp_path: Path) -> None:
    first = stage("codes", ["items"], [], writes={"tables": ["item_codes"], "artifact": True})
    root = declare(tmp_path, first, stage("fit", ["samples", "item_codes"], ["codes"]))
    assert load_pipeline("toy", "demo", root).tables() == {"items", "samples"}


def test_an_artifact_that_no_earlier_stage_writes_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], ["codes"]), stage("codes", [], []))
    with pytest.raises(PipelineError, match=r"stage fit reads .*codes.*, which no earlier stage writes"):
        load_pipeline("toy", "demo", root)


def test_a_stage_that_does_not_name_the_preset_is_left_out_and_so_is_the_reading_of_it(tmp_path: Path) -> None:
    written = {"tables": ["item_codes"], "artifact": True}
    old = stage("old", ["past"], [], writes=written, config={"bench": {}})
    new = stage("new", ["items"], [], writes=written, config={"bench": {}, "demo": {"levels": 3}})
    root = declare(tmp_path, old, new, stage("fit", ["samples", "item_codes"], ["old", "new"], config={"demo": {}}))
    demo, bench = load_pipeline("toy", "demo", root), load_pipeline("toy", "bench", root)
    assert [one.name for one in demo.stages] == ["new", "fit"]
    assert demo.stage("fit").reads.artifacts == ("new",)
    assert demo.tables() == {"items", "samples"}
    assert [one.name for one in bench.stages] == ["old", "new"]
    assert bench.tables() == {"past", "items"}


def test_the_config_of_another_preset_is_no_part_of_a_preset(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], [], config={"demo": {"levels": 3}, "bench": {"levels": 4}}))
    assert load_pipeline("toy", "demo", root).stage("fit").config == {"demo": {"levels": 3}}


def test_a_preset_may_want_other_gpus_than_the_rest(tmp_path: Path) -> None:
    wanted = {"gpu": {"class": "small", "count": 1}, "gpu_for": {"bench": {"class": "large", "count": 4}}}
    root = declare(tmp_path, stage("fit", [], [], config={"demo": {}, "bench": {}}, **wanted))
    demo, bench = (load_pipeline("toy", preset, root) for preset in ("demo", "bench"))
    assert [(one.stage("fit").gpu.kind, one.stage("fit").gpu.count) for one in (demo, bench)] == [
        ("small", 1),
        ("large", 4),
    ]
    (tmp_path / "plain").mkdir()
    plain = declare(tmp_path / "plain", stage("fit", [], [], config={"demo": {}}, gpu=wanted["gpu"]))
    assert demo.model_dump() == load_pipeline("toy", "demo", plain).model_dump()  # another preset's is no part of it


def test_a_preset_that_no_stage_names_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], []))
    with pytest.raises(PipelineError, match="no stage under the preset 'production'"):
        load_pipeline("toy", "production", root)


def test_an_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], [], gpus=2))
    with pytest.raises(PipelineError, match=r"stages.0.gpus"):
        load_pipeline("toy", "demo", root)


def test_an_unknown_retry_class_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], [], retry="always"))
    with pytest.raises(PipelineError, match=r"stages.0.retry"):
        load_pipeline("toy", "demo", root)


def test_a_system_without_a_declaration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no pipeline 'toy'"):
        load_pipeline("toy", "demo", tmp_path)
