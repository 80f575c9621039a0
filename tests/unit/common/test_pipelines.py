"""Stage declarations."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from common.errors import DataError
from common.faults import unknown_assets
from common.pipelines import Preset, load_pipeline, owner, read_pipeline, read_pipelines, systems
from infra.contracts import all_contracts
from tests.pipeline_kit import TRAINING


def stage(name: str, tables: list[str], artifacts: list[str], **more: Any) -> dict[str, Any]:
    reads = {"tables": tables, "artifacts": artifacts}
    base = {"name": name, "reads": reads, "writes": {"artifact": True}, "time_limit_minutes": 5, "retry": "transient"}
    return {**base, "config": {"demo": {}}, **more}


def declare(root: Path, *stages: dict[str, Any], **more: Any) -> Path:
    (root / "toy").mkdir()
    values = {"training": TRAINING, "stages": list(stages), **more}
    (root / "toy" / "pipeline.yaml").write_text(yaml.safe_dump(values))
    return root


def job(name: str = "nightly", stage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    facts = {"name": name, "notes": "### Nightly", "deadline_minutes": 60, "stage": stage or one_more("list")}
    return {**facts, **(more or {"after": ["events"]})}


def one_more(name: str, **more: Any) -> dict[str, Any]:
    return stage(name, [], [], **more)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_every_declaration_of_the_checkout_is_sound_under_every_preset(preset: Preset) -> None:
    assert systems()
    for system in systems():
        assert load_pipeline(system, preset).stages


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_job_has_every_preset_and_is_no_part_of_a_training_run(preset: Preset) -> None:
    pipeline = load_pipeline("generative_rec", preset)
    assert preset in pipeline.job("nightly_recommend").stage.config
    assert "recommendations" not in {table for stage in pipeline.stages for table in stage.writes.tables}
    assert not {"jobs", "training", "models"} & set(pipeline.made_by()), "it would name every run anew"


def test_what_follows_the_clock_may_ask_which_rows_it_has_written(tmp_path: Path) -> None:
    """Nothing sets it off by its own rows; it still reads none of them whole."""
    root = declare(tmp_path, stage("fit", [], []), jobs=[job(stage=RENEWED, every="5m")])
    assert load_pipeline("toy", "demo", root).job("nightly").minutes == 5
    whole = {**RENEWED, "reads": {"tables": ["lists"]}}
    (tmp_path / "again").mkdir()
    root = declare(tmp_path / "again", stage("fit", [], []), jobs=[job(stage=whole, every="5m")])
    with pytest.raises(DataError, match="reads or waits for lists, which it writes itself"):
        load_pipeline("toy", "demo", root)


def test_an_unknown_job_lists_the_known(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], []), jobs=[job()])
    assert load_pipeline("toy", "demo", root).job("nightly").stage.name == "list"
    with pytest.raises(DataError, match=r"(?s)toy has no job 'hourly'.*nightly"):
        load_pipeline("toy", "demo", root).job("hourly")


def test_a_preset_has_the_jobs_and_models_whose_stages_name_it(tmp_path: Path) -> None:
    bench = {"config": {"bench": {}}}
    root = declare(
        tmp_path, stage("fit", [], []), one_more("judge", **bench), models={"a": "fit", "b": "judge"},
        jobs=[job("one"), job("two", one_more("list", **bench))],
    )  # fmt: skip
    demo, full = load_pipeline("toy", "demo", root), read_pipeline("toy", root)
    assert (dict(demo.models), [one.name for one in demo.jobs]) == ({"a": "fit"}, ["one"])
    assert (dict(full.models), [one.name for one in full.jobs]) == ({"a": "fit", "b": "judge"}, ["one", "two"])
    assert owner("b", systems(root), root) == "toy"
    with pytest.raises(DataError, match=r"(?s)no model 'c'.*a, b"):
        owner("c", systems(root), root)


def writer(name: str, table: str) -> dict[str, Any]:
    return one_more(name, writes={"tables": [table], "artifact": True})


def asked(days: int) -> dict[str, Any]:
    return {"file": "active.sql", "tables": ["events"], "days": days}


RENEWED = {**writer("list", "lists"), "reads": {"query": {"file": "old.sql", "tables": ["lists"]}}}
NO_PRESET = "{} is not allowed(?s:.*)stages.0.config(?s:.*)'demo', 'bench', 'production'"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"models": {"m": "nothing"}}, "model m is made by nothing, which is no stage that writes an artifact"),
        ({"jobs": [job(after=[])]}, "nightly needs either `after"),
        ({"jobs": [job(after=["events"], every="15m")]}, "nightly needs either `after"),
        ({"jobs": [job(every="15 minutes")]}, "nightly runs every '15 minutes', where 1 or more minutes or hours"),
        ({"jobs": [job(every="0m")]}, "nightly runs every '0m', where 1 or more minutes or hours are allowed, as 15m"),
        ({"jobs": [job(every="2d")]}, "nightly runs every '2d', where 1 or more minutes or hours are allowed, as 15m"),
        ({"jobs": [job(stage=RENEWED)]}, "job nightly reads or waits for lists, which it writes itself"),
        ({"jobs": [job(stage=writer("list", "lists"), after=["lists"])]}, "reads or waits for lists, which it writes"),
        ({"jobs": [job(after=["events"], deadline_minutes=0)]}, "job nightly has 0 deadline_minutes, where 1 to"),
        ({"training": {**TRAINING, "deadline_minutes": -5}}, "training has -5 deadline_minutes, where 1 to"),
        ({"jobs": [job(stage=one_more("list", time_limit_minutes=0))]}, "job nightly has 0 time_limit_minutes, where"),
        ({"stages": [one_more("fit", time_limit_minutes=-1)]}, "stage fit has -1 time_limit_minutes, where 1 to"),
        ({"stages": [one_more("fit", reads={"query": asked(0)})]}, r"stage fit has 0 query\.days, where 1 to"),
        ({"jobs": [job(stage=one_more("list", reads={"query": asked(-1)}))]}, r"job nightly has -1 query\.days, where"),
        (
            {"jobs": [job(stage=one_more("list", reads={"query": {**asked(1), "features": True}}))]},
            "job nightly asks for features of the store, and reads no model that could take any",
        ),
        ({"stages": [one_more("fit", gpu={"kind": "small"})]}, r"0 GPUs of the kind small \(gpu\), where 1 or"),
        ({"stages": [one_more("fit", gpu={"kind": "large", "count": -1})]}, "-1 GPUs of the kind large.*1 or more are"),
        ({"stages": [one_more("fit", gpu={"kind": "none", "count": 2})]}, "2 GPUs of the kind none.*, where 0 are"),
        ({"stages": [one_more("fit", gpu_for={"demo": {"kind": "small"}})]}, r"0 .* small \(gpu_for\.demo\), where 1"),
        (
            {"stages": [one_more("fit well")]},
            "the stage 'fit well' is no name: up to 100 of A",
        ),
        (
            {"stages": [one_more("fit", module="fits/a")]},
            "the module 'fits/a' is no name: up to 100 of A",
        ),
        ({"models": {"ranker:1": "fit"}}, "the model 'ranker:1' is no name: up to 100 of A"),
        ({"jobs": [job("jede Nacht")]}, "the job 'jede Nacht' is no name: up to 100 of A"),
        ({"jobs": [job(stage=one_more("für"))]}, "the stage 'für' is no name: up to 100 of A"),
        ({"jobs": [job(after=["verdict(m)"])]}, r"nightly waits for an asset that is none: 'verdict\(m\)'"),
        ({"jobs": [job(stage=stage("list", [], ["fit"]))]}, "job nightly reads artifacts"),
        ({"jobs": [job(), job()]}, "two DAGs would be called nightly"),
        ({"jobs": [job("align_toy")]}, "two DAGs would be called align_toy"),
        ({"training": TRAINING | {"deadline_minutes": 10**20}}, "training has 1000.* where 1 to 1000000 are"),
        ({"jobs": [job(every="99999999h")]}, "job nightly has 5999999940 minutes in `every`"),
        ({"training": TRAINING | {"notes": " "}}, "training has no notes"),
        (
            {"stages": [one_more("register"), one_more("register_m")], "models": {"m": "register"}},
            "called register, as",
        ),
        ({"stages": [one_more("s" * 101)]}, "is no name: up to 100"),
        ({"stages": [one_more("fit", config={})]}, "no stage names a preset"),
        ({"stages": []}, "no stage names a preset"),
        ({"models": {"m": "fit"}, "jobs": [job("promote_m")]}, "two DAGs would be called promote_m"),
        ({"stages": [stage("fit", [], []), stage("fit", [], [])]}, "two stages are called fit"),
        ({"stages": [stage("fit", [], [], config={"demo": {}, "tiny": {}})]}, NO_PRESET.format("'tiny'")),
        ({"stages": [stage("fit", [], [], config={"demo": {}, 1: {}})]}, NO_PRESET.format("1")),
        ({"stages": [stage("fit", [], [], gpu_for={"tiny": {}})]}, "'tiny' is not allowed(?s:.*)stages.0.gpu_for"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as refusal:
        load_pipeline("toy", "demo", declare(tmp_path, stage("fit", [], []), **more))
    assert "toy/pipeline.yaml" in refusal.value.where and refusal.value.do


def test_the_name_of_a_system_is_one_for_airflow_mlflow_and_python(tmp_path: Path) -> None:
    declare(tmp_path, one_more("fit"))
    (tmp_path / "toy").rename(tmp_path / "toy shop")
    with pytest.raises(DataError, match="the system 'toy shop' is no name: up to 100 of A"):
        read_pipeline("toy shop", tmp_path)


def test_what_a_declaration_names_of_its_folder_is_there(tmp_path: Path) -> None:
    listed = one_more("list", reads={"query": asked(1)})
    folder = declare(tmp_path, one_more("fit", module="train"), jobs=[job(stage=listed)]) / "toy"
    assert read_pipeline("toy", tmp_path), "a declaration is read without its code"
    (folder / "stages").mkdir()
    for place, fault in (
        ("stages/train.py", r"stage fit needs stages/train\.py"),
        ("stages/list.py", r"job nightly needs stages/list\.py"),
        ("active.sql", r"job nightly needs active\.sql"),
    ):
        with pytest.raises(DataError, match=f"{fault}, which is not there"):
            read_pipeline("toy", tmp_path)
        (folder / place).touch()
    assert read_pipeline("toy", tmp_path)


@pytest.mark.parametrize(
    ("awaited", "unknown"),
    [
        ([["events"], ["challenger(ranker)", "decision(ranker)"]], []),
        ([["orders"], ["events"]], ["training waits for orders, which is no table"]),
        ([["challenger(nobody)"], ["events"]], [r"training waits for challenger\(nobody\), which is no table, nor of"]),
        ([["events"], ["decision(nobody)", "ranker", "decision(events)"]],
         [r"job nightly waits for decision\(nobody\)", "job nightly waits for ranker", r"waits for decision\(events"]),
    ],
)  # fmt: skip
def test_assets_that_nobody_makes_are_named(tmp_path: Path, awaited: list[list[str]], unknown: list[str]) -> None:
    training, nightly = awaited
    declare(tmp_path, one_more("fit"), training={**TRAINING, "after": training}, jobs=[job(after=nightly)])
    found = list(unknown_assets(read_pipeline("toy", tmp_path), {"ranker"}, {"events", "items"}))
    assert len(found) == len(unknown) and all(map(re.search, unknown, found)), found


def test_every_system_of_the_checkout_waits_for_what_there_is() -> None:
    known = [read_pipeline(system) for system in systems()]
    models = {model for pipeline in known for model in pipeline.models}
    assert [fault for pipeline in known for fault in unknown_assets(pipeline, models, all_contracts())] == []


@pytest.mark.parametrize(("every", "minutes"), [("15m", 15), ("2h", 120)])
def test_a_job_may_follow_the_clock(tmp_path: Path, every: str, minutes: int) -> None:
    root = declare(tmp_path, stage("fit", [], []), jobs=[job(every=every)])
    assert load_pipeline("toy", "demo", root).jobs[0].minutes == minutes


def test_a_stage_comes_after_the_stages_that_it_reads_each_said_once(tmp_path: Path) -> None:
    codes = stage("codes", ["items"], [], writes={"tables": ["item_codes"], "artifact": True})
    root = declare(
        tmp_path, codes, stage("ranker", ["samples"], []), stage("fit", ["samples"], ["codes"]),
        stage("score", ["item_codes"], ["ranker"]), stage("evaluate", [], ["codes", "ranker", "fit"]),
    )  # fmt: skip
    pipeline = load_pipeline("toy", "demo", root)
    assert {one.name: pipeline.before(one) for one in pipeline.stages} == {
        "codes": set(),
        "ranker": set(),
        "fit": {"codes"},
        "score": {"codes", "ranker"},
        "evaluate": {"ranker", "fit"},
    }


def test_a_stage_reads_no_table_that_it_or_a_later_stage_writes(tmp_path: Path) -> None:
    own = {**writer("fit", "codes"), "reads": {"tables": ["codes"]}}
    with pytest.raises(DataError, match="fit reads codes, which it or a later stage writes"):
        read_pipeline("toy", declare(tmp_path, own))
    (tmp_path / "cycle").mkdir()
    with pytest.raises(DataError, match="a reads y, which it or a later stage writes"):
        a, b = ({**writer(name, out), "reads": {"tables": [read]}} for name, out, read in ("axy", "byx"))
        read_pipeline("toy", declare(tmp_path / "cycle", a, b))


def test_a_declaration_that_is_no_utf8_is_refused_with_its_file(tmp_path: Path) -> None:
    declaration = declare(tmp_path, one_more("fit")) / "toy" / "pipeline.yaml"
    declaration.write_bytes(declaration.read_bytes() + "# Bücher".encode("latin-1"))
    with pytest.raises(DataError, match=r"no YAML(?s:.*)toy/pipeline\.yaml"):
        read_pipeline("toy", tmp_path)


@pytest.mark.parametrize("text", ["", "- training", "training", "system: other\ntraining: {}"])
def test_what_declares_no_system_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "pipeline.yaml").write_text(text)
    with pytest.raises(DataError, match=r"toy/pipeline\.yaml"):
        read_pipeline("toy", tmp_path)


def test_keys_of_any_kind_that_are_unknown_are_named(tmp_path: Path) -> None:
    declared = declare(tmp_path, one_more("fit"), zz=1) / "toy" / "pipeline.yaml"
    declared.write_text(declared.read_text() + "1: 2\n")
    with pytest.raises(DataError, match="unknown config key '1'"):
        read_pipeline("toy", tmp_path)


def two_systems(root: Path, first: dict[str, Any], second: dict[str, Any]) -> Path:
    """The systems `other` and `toy`, each with one stage and more."""
    declare(root, one_more("fit"), **first)
    (root / "toy").rename(root / "other")
    return declare(root, one_more("fit"), **second)


@pytest.mark.parametrize(
    ("first", "second", "dag"),
    [
        ({"jobs": [job()]}, {"jobs": [job()]}, "nightly"),
        ({"models": {"m": "fit"}}, {"models": {"m": "fit"}}, "promote_m"),
        ({"models": {"m": "fit"}}, {"jobs": [job("promote_m")]}, "promote_m"),
        ({}, {"jobs": [job("align_other")]}, "align_other"),
        ({}, {"jobs": [job("ingest")]}, "ingest"),
    ],
)
def test_a_second_dag_of_one_name_is_refused_and_its_system_alone(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], dag: str
) -> None:
    root = two_systems(tmp_path, first, second)
    found, faults = read_pipelines(["other", "toy"], root, taken={"ingest": "dags/ingest.py"})
    assert [declared.system for declared in found] == ["other"]
    (fault,) = faults
    assert f"Two places make a DAG '{dag}'" in fault.what
    assert str(root / "toy") in fault.where


def test_a_system_that_cannot_be_read_takes_nothing_from_the_others(tmp_path: Path) -> None:
    root = two_systems(tmp_path, {"models": {"b": "fit"}}, {"models": {"m": "nothing"}})
    found, faults = read_pipelines(systems(root), root)
    assert [declared.system for declared in found] == ["other"]
    assert ["toy/pipeline.yaml" in fault.where for fault in faults] == [True]
    assert owner("b", systems(root), root) == "other"
    with pytest.raises(DataError, match="m is made by nothing"):
        owner("m", systems(root), root)


@pytest.mark.parametrize("spoil", [lambda path: path.symlink_to("/nowhere/pipeline.yaml"), Path.mkdir])
def test_a_declaration_that_leads_nowhere_is_a_named_fault(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    root = declare(tmp_path, one_more("fit"))
    (root / "gone").mkdir()
    spoil(root / "gone" / "pipeline.yaml")
    found, (fault,) = read_pipelines(systems(root), root)
    assert [declared.system for declared in found] == ["toy"]
    assert fault.where.endswith("gone/pipeline.yaml")
    assert "cannot be read" in fault.what and fault.why and fault.do


def test_a_run_pins_the_tables_that_come_from_outside_and_no_others(tmp_path: Path) -> None:
    first = stage("codes", ["items"], [], writes={"tables": ["item_codes"], "artifact": True})
    root = declare(tmp_path, first, stage("fit", ["samples", "item_codes"], ["codes"]))
    assert load_pipeline("toy", "demo", root).tables() == {"items", "samples"}


def test_an_artifact_that_no_earlier_stage_writes_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], ["codes"]), stage("codes", [], []))
    with pytest.raises(DataError, match=r"stage fit reads codes, which no earlier stage writes"):
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
    wanted = {"gpu": {"kind": "small", "count": 1}, "gpu_for": {"bench": {"kind": "large", "count": 4}}}
    root = declare(tmp_path, stage("fit", [], [], config={"demo": {}, "bench": {}}, **wanted))
    demo, bench = (load_pipeline("toy", preset, root) for preset in ("demo", "bench"))
    assert [(one.stage("fit").gpu.kind, one.stage("fit").gpu.count) for one in (demo, bench)] == [
        ("small", 1),
        ("large", 4),
    ]
    (tmp_path / "plain").mkdir()
    plain = declare(tmp_path / "plain", stage("fit", [], [], config={"demo": {}}, gpu=wanted["gpu"]))
    assert demo == load_pipeline("toy", "demo", plain)  # another preset's is no part of it


def test_a_preset_that_no_stage_names_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], []))
    with pytest.raises(DataError, match="no stage under the preset 'production'"):
        load_pipeline("toy", "production", root)


def test_an_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], [], gpus=2))
    with pytest.raises(DataError, match=r"(?s)unknown config key 'gpus'.*stages.0"):
        load_pipeline("toy", "demo", root)


def test_an_unknown_retry_class_is_an_error(tmp_path: Path) -> None:
    root = declare(tmp_path, stage("fit", [], [], retry="always"))
    with pytest.raises(DataError, match=r"(?s)'always' is not allowed.*stages.0.retry"):
        load_pipeline("toy", "demo", root)


def test_a_system_without_a_declaration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no system 'toy'"):
        load_pipeline("toy", "demo", tmp_path)
