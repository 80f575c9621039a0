"""The glue: what a training run reads and where it lives, what is published, what the exports hold, what is stuck."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.pipelines import Pipeline, Query
from dags.steps import _inputs, clean_airflow, export_tables, run_stage
from dags.steps._folders import Run
from dags.steps._publish import publish_rows
from dags.steps._runs import close_run, open_run
from dags.steps._specs import write_spec
from dags.steps.run_stage import of_run
from dags.steps.stuck_attempts import stuck_attempts
from infra.contracts import arrow_schema, load_contract
from infra.errors import EXIT_TRANSIENT, DataError, exit_with_reason
from infra.lake import Lake, publish
from infra.ledger import Ledger, run_key
from infra.partitions import PartitionWrite
from infra.profile import Profile
from tests.lake_kit import put
from tests.pipeline_kit import declared

DAY = date(2018, 1, 5)


def items(*rows: tuple[date, str]) -> pa.Table:
    made = [{"snapshot_date": day, "item_id": item, "source": "shop", "title": f"Item {item}"} for day, item in rows]
    return pa.Table.from_pylist(made, schema=arrow_schema(load_contract("items")))


def codes(*rows: tuple[date, str]) -> pa.Table:
    made = [{"run_date": day, "item_id": item, "codes": [1, 2, 3]} for day, item in rows]
    return pa.Table.from_pylist(made, schema=arrow_schema(load_contract("item_codes")))


@pytest.fixture
def pipeline() -> Pipeline:
    """Two stages: `codes` reads the catalogue, `fit` reads a table of days and the codes."""
    common: dict[str, Any] = {"time_limit_minutes": 5, "retry": "transient", "config": {"demo": {"levels": 3}}}
    first = {"name": "codes", "reads": {"tables": ["items"]}, "writes": {"artifact": True}, **common}
    second = {"name": "fit", "reads": {"tables": ["item_codes"], "artifacts": ["codes"]}, "writes": {}, **common}
    return declared(stages=[first, second])


@pytest.fixture
def filled(profile: Profile) -> Profile:
    """A lake with two catalogues and three days of another table."""
    put(profile, "items", items((date(2018, 1, 1), "a"), (date(2018, 1, 4), "a"), (date(2018, 1, 4), "b")))
    publish_rows(profile, "item_codes", codes(*((DAY + timedelta(days=n), "a") for n in (-1, 0, 1))))
    return profile


def spec(profile: Profile, pipeline: Pipeline, stage: str, run: Run) -> dict[str, Any]:
    return dict(json.loads(write_spec(profile, pipeline, pipeline.stage(stage), run).read_text()))


def test_a_stage_reads_days_up_to_the_last_and_only_the_newest_catalogue(filled: Profile, pipeline: Pipeline) -> None:
    run = open_run(filled, pipeline, "r1", DAY)
    days = [Path(file).parts[-4] for file in spec(filled, pipeline, "fit", run)["tables"]["item_codes"]["files"]]
    catalogues = [Path(file).parts[-4] for file in spec(filled, pipeline, "codes", run)["tables"]["items"]["files"]]
    assert days == ["2018-01-04", "2018-01-05"]
    assert catalogues == ["2018-01-04"]


def test_a_table_without_rows_up_to_the_day_is_an_empty_file(filled: Profile, pipeline: Pipeline) -> None:
    run = open_run(filled, pipeline, "r1", DAY - timedelta(days=2))
    (file,) = spec(filled, pipeline, "fit", run)["tables"]["item_codes"]["files"]
    found = pq.read_table(file)
    assert len(found) == 0 and found.schema.equals(arrow_schema(load_contract("item_codes")))


def test_a_spec_names_snapshots_origin_artifacts_and_the_presets_config(filled: Profile, pipeline: Pipeline) -> None:
    run = open_run(filled, pipeline, "r1", DAY)
    made = spec(filled, pipeline, "fit", run)
    assert made["tables"]["item_codes"]["snapshot"] == Lake(filled).snapshot("item_codes")
    assert made["tables"]["item_codes"]["origin"] == "real"
    assert made["artifacts"] == {"codes": str(run.folder / "codes")}
    assert made["config"] == {"levels": 3}
    assert made["module"] == "fit"
    assert Path(made["out"]) == run.folder / "fit"


def test_a_run_keeps_what_it_pinned_whatever_is_published_meanwhile(filled: Profile, pipeline: Pipeline) -> None:
    before = spec(filled, pipeline, "fit", open_run(filled, pipeline, "r1", DAY))
    publish_rows(filled, "item_codes", codes((DAY, "a"), (DAY, "z")))
    assert spec(filled, pipeline, "fit", open_run(filled, pipeline, "r1", DAY)) == before


def test_another_run_on_the_same_data_finds_the_same_folder(filled: Profile, pipeline: Pipeline) -> None:
    assert open_run(filled, pipeline, "r1", DAY) == open_run(filled, pipeline, "r2", DAY)


def test_a_later_day_of_another_partition_does_not_move_the_folder(filled: Profile, pipeline: Pipeline) -> None:
    before = open_run(filled, pipeline, "r1", DAY)
    publish_rows(filled, "item_codes", codes((DAY + timedelta(days=2), "a")))
    assert open_run(filled, pipeline, "r2", DAY).folder == before.folder


def test_a_day_that_brought_no_data_trains_nothing_anew(filled: Profile, pipeline: Pipeline) -> None:
    newest = DAY + timedelta(days=1)
    run = open_run(filled, pipeline, "r1", newest)
    assert open_run(filled, pipeline, "r2", newest + timedelta(days=7)) == run
    assert run.last == newest


@pytest.mark.parametrize("change", ["data", "config", "day"])
def test_another_input_gives_another_folder(filled: Profile, pipeline: Pipeline, change: str) -> None:
    before, day = open_run(filled, pipeline, "r1", DAY).folder, DAY
    if change == "data":
        publish_rows(filled, "item_codes", codes((DAY, "a"), (DAY, "z")))
    if change == "config":
        pipeline = replace(pipeline, seed=18)
    if change == "day":
        day += timedelta(days=1)
    assert open_run(filled, pipeline, "r2", day).folder != before


def test_an_open_run_keeps_its_snapshots_by_a_tag_and_a_closed_one_gives_them_free(
    filled: Profile, pipeline: Pipeline
) -> None:
    run = open_run(filled, pipeline, "r1", DAY)
    assert [version.tags for version in Lake(filled).history("items")] == [(run.tag,)]
    close_run(filled, run)
    assert [version.tags for version in Lake(filled).history("items")] == [()]


def test_a_table_that_was_never_published_is_an_error_before_any_training(profile: Profile, pipeline: Pipeline) -> None:
    with pytest.raises(DataError, match="Nothing was ever published to 'item_codes'"):
        open_run(profile, pipeline, "r1", DAY)


def test_a_table_whose_days_never_had_a_row_is_empty_and_stays_so_for_the_run(
    profile: Profile, pipeline: Pipeline
) -> None:
    put(profile, "items", items((DAY, "a")))
    ledger = Ledger(profile)
    attempt = ledger.open_attempt("item_codes", [DAY])
    nothing = PartitionWrite(DAY, run_key("item_codes", DAY, ["nothing"], {}, 1), (), 0, 0)
    publish(Lake(profile), ledger, "item_codes", [nothing], attempt)

    def read(run: Run) -> tuple[int, int | None]:
        table = spec(profile, pipeline, "fit", run)["tables"]["item_codes"]
        return sum(pq.read_metadata(file).num_rows for file in table["files"]), table["snapshot"]

    first = open_run(profile, pipeline, "r1", DAY)
    assert read(first) == (0, None) and "item_codes" not in first.pins
    publish_rows(profile, "item_codes", codes((DAY, "a")))
    assert read(open_run(profile, pipeline, "r1", DAY)) == (0, None), "a run keeps what it began with"
    assert read(open_run(profile, pipeline, "r2", DAY))[0] == 1


def test_what_an_earlier_stage_of_the_run_has_published_is_read_as_it_is_now(profile: Profile) -> None:
    common: dict[str, Any] = {"time_limit_minutes": 5, "retry": "transient", "config": {"demo": {}}}
    first = {"name": "codes", "reads": {"tables": ["items"]}, "writes": {"tables": ["item_codes"]}, **common}
    second = {"name": "fit", "reads": {"tables": ["item_codes"]}, "writes": {}, **common}
    pipeline = declared(stages=[first, second])
    put(profile, "items", items((DAY, "a")))
    run = open_run(profile, pipeline, "r1", DAY)
    publish_rows(profile, "item_codes", codes((DAY, "a"), (DAY, "b")))
    table = spec(profile, pipeline, "fit", run)["tables"]["item_codes"]
    assert sum(pq.read_metadata(file).num_rows for file in table["files"]) == 2 and table["snapshot"] is not None


def test_a_table_that_a_shop_may_not_have_gives_no_rows_until_a_run_pins_it(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "said.sql").write_text("SELECT item_id FROM item_codes")
    monkeypatch.setattr(_inputs, "SYSTEMS", tmp_path)
    monkeypatch.setattr(_inputs.query_rows, "__defaults__", (tmp_path,))
    query = {"file": "said.sql", "tables": ["item_codes"], "optional": ["item_codes"]}
    stage = {"name": "fit", "reads": {"tables": ["items"], "query": query}, "writes": {}, "retry": "transient"}
    asking = replace(declared(stages=[{**stage, "time_limit_minutes": 5, "config": {"demo": {}}}]), system="demo")
    put(profile, "items", items((DAY, "a")))

    def rows(run: Run) -> int:
        return sum(
            pq.read_metadata(file).num_rows for file in spec(profile, asking, "fit", run)["tables"]["said"]["files"]
        )

    first = open_run(profile, asking, "r1", DAY)
    assert rows(first) == 0 and "item_codes" not in first.pins
    publish_rows(profile, "item_codes", codes((DAY, "a")))
    assert rows(open_run(profile, asking, "r1", DAY)) == 0, "a run keeps what it began with"
    later = open_run(profile, asking, "r2", DAY)
    assert later.folder != first.folder and rows(later) == 1
    needed = [
        {
            **stage,
            "reads": {"tables": ["items", "user_codes"], "query": {**query, "tables": ["user_codes"]}},
            "time_limit_minutes": 5,
            "config": {"demo": {}},
        }
    ]
    with pytest.raises(DataError, match="user_codes"):
        open_run(profile, replace(declared(stages=needed), system="demo"), "r3", DAY)


def test_the_times_of_a_query_are_utc_whatever_the_machine_calls_it(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "known.sql").write_text("SELECT snapshot_date::timestamptz AS known_at FROM items")
    put(profile, "items", items((DAY, "a")))
    found = _inputs.query_rows(Lake(profile), "demo", Query("known.sql", ("items",)), DAY, {}, tmp_path)
    assert str(found.schema.field("known_at").type) == "timestamp[us, tz=UTC]"
    assert found["known_at"].to_pylist() == [datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)]


def test_the_same_rows_again_change_nothing_and_open_no_attempt(profile: Profile) -> None:
    assert publish_rows(profile, "item_codes", codes((DAY, "a"), (DAY, "b"))) == (DAY,)
    snapshot = Lake(profile).snapshot("item_codes")
    assert publish_rows(profile, "item_codes", codes((DAY, "b"), (DAY, "a"))) == ()
    assert Lake(profile).snapshot("item_codes") == snapshot
    assert stuck_attempts(profile, datetime.now(UTC) + timedelta(days=1)) == []


def test_only_the_days_that_changed_are_published(profile: Profile) -> None:
    other = DAY + timedelta(days=1)
    publish_rows(profile, "item_codes", codes((DAY, "a"), (other, "a")))
    assert publish_rows(profile, "item_codes", codes((DAY, "a"), (other, "b"))) == (other,)


def test_no_rows_are_no_publish(profile: Profile) -> None:
    assert publish_rows(profile, "item_codes", codes()) == ()


def test_rows_join_those_of_a_table_that_grows_and_change_none(profile: Profile) -> None:
    def hints(*rows: tuple[date, str, str]) -> pa.Table:
        at = datetime(2018, 1, 5, tzinfo=UTC)
        fixed = {"available_at": at + timedelta(seconds=1), "signal_time": at, "sources": ["model"], "lists": [0]}
        fixed |= {"trigger_actions": ["view"], "trigger_contents": ["i"], "model_version": "1"}
        made = [{"hint_date": d, "user_id": u, "signal_id": "s", "queries": [q], **fixed} for d, u, q in rows]
        return pa.Table.from_pylist(made, schema=arrow_schema(load_contract("user_hints")))

    other = DAY + timedelta(days=1)
    publish_rows(profile, "user_hints", hints((DAY, "ann", "pens"), (other, "ann", "pens")))
    assert publish_rows(profile, "user_hints", hints((DAY, "bob", "ink"), (DAY, "ann", "glue"))) == (DAY,)
    assert publish_rows(profile, "user_hints", hints((DAY, "bob", "tape"))) == ()
    rows = [row for file in Lake(profile).files("user_hints") for row in pq.read_table(file.path).to_pylist()]
    told = sorted((row["hint_date"], row["user_id"], row["queries"][0]) for row in rows)
    assert told == [(DAY, "ann", "pens"), (DAY, "bob", "ink"), (other, "ann", "pens")]


def _without_codes(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["codes"])


def _with_text_codes(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["codes"]).append_column("codes", pa.array(["x"] * len(rows)))


@pytest.mark.parametrize("spoil", [_without_codes, _with_text_codes])
def test_rows_that_do_not_fit_the_contract_are_refused(profile: Profile, spoil: Callable[[pa.Table], pa.Table]) -> None:
    with pytest.raises(DataError, match="do not fit 'item_codes'"):
        publish_rows(profile, "item_codes", spoil(codes((DAY, "a"))))


def test_a_day_that_repeats_a_key_is_stopped_keeps_its_old_rows_and_stops_no_other_day(profile: Profile) -> None:
    other = DAY + timedelta(days=1)
    publish_rows(profile, "item_codes", codes((DAY, "a")))
    with pytest.raises(DataError, match="item_codes of 2018-01-05 was not published") as refusal:
        publish_rows(profile, "item_codes", codes((DAY, "b"), (DAY, "b"), (other, "c")))
    assert "1 of 2 rows are bad (50.0%, at most 0.0%), most often by rule unique_key (1)" in refusal.value.why
    rows = [row for file in Lake(profile).files("item_codes") for row in pq.read_table(file.path).to_pylist()]
    assert sorted((row["run_date"], row["item_id"]) for row in rows) == [(DAY, "a"), (other, "c")]
    told = (profile.home / "report" / "quarantine" / "item_codes-2018-01-05.csv").read_text()
    assert "unique_key" in told and '""item_id"": ""b""' in told


def test_what_each_rule_found_is_in_the_ledger(profile: Profile) -> None:
    publish_rows(profile, "item_codes", codes((DAY, "a")))
    rules = Ledger(profile).committed("item_codes")[DAY].rules
    assert {(r.rule, r.status) for r in rules} == {
        *((f"{name}_present", "ok") for name in ("run_date", "item_id", "codes")),
        ("unique_key", "ok"),
    }


def test_the_tables_of_a_stage_are_of_the_last_day_of_its_run_row_by_row() -> None:
    table = pa.table({"item_id": ["b", "a"], "codes": [[1], [2]]})
    rows = of_run(table, load_contract("item_codes"), DAY, {"stage": "codes"})
    assert rows["stage"].to_pylist() == ["codes", "codes"]
    assert rows["item_id"].to_pylist() == ["b", "a"]  # two equal rows are two: a sampled rollout may be drawn twice
    assert set(rows["run_date"].to_pylist()) == {DAY}


def test_an_attempt_without_a_commit_is_stuck_until_a_newer_one_commits(profile: Profile) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    died = Ledger(profile).open_attempt("item_codes", [DAY])
    assert [(token, day) for token, _, day, _ in stuck_attempts(profile, later)] == [(died.token, DAY)]
    assert stuck_attempts(profile, died.started) == []
    publish_rows(profile, "item_codes", codes((DAY, "a")))
    assert stuck_attempts(profile, later) == []


class Api:
    """Answers as the API server does: one run with a task that failed once, one that succeeded, one that runs."""

    run: ClassVar = {
        "dag_id": "ingest",
        "dag_run_id": "r1",
        "queued_at": "2026-01-02T23:59:00Z",
        "partition_key": "2018-01-05",
    }

    def runs(self, since: datetime) -> list[dict[str, Any]]:
        old = {**self.run, "dag_run_id": "r0", "queued_at": "2025-12-01T00:00:00Z"}
        return [{**run, "run_after": run["queued_at"]} for run in (old, self.run)]

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [self._try("events", "success", 2), self._try("catalogue", "success", 1), self._try("x", "running", 1)]

    def tries(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        return [self._try(task_id, "failed", 1), self._try(task_id, "success", 2)]

    def _try(self, task: str, state: str, number: int) -> dict[str, Any]:
        times = {"queued_when": "2026-01-03T00:00:00Z", "start_date": "2026-01-03T00:00:04Z"}
        end = None if state == "running" else "2026-01-03T00:01:04Z"
        names = {"dag_id": "ingest", "dag_run_id": "r1", "task_id": task, "try_number": number}
        return {**names, **times, "end_date": end, "state": state}


def test_every_finished_try_is_a_row_of_the_day_on_which_its_run_was_queued(profile: Profile) -> None:
    rows = list(export_tables.task_rows(Api(), date(2026, 1, 1)))  # type: ignore[arg-type]
    found = {(row["task_id"], row["try_number"], row["state"]) for row in rows}
    assert found == {("events", 1, "failed"), ("events", 2, "success"), ("catalogue", 1, "success")}
    assert {(row["run_date"], row["queue_seconds"], row["run_seconds"]) for row in rows} == {
        (date(2026, 1, 2), 4.0, 60.0)
    }
    schema = arrow_schema(load_contract("ops_task_instances"))
    assert publish_rows(profile, "ops_task_instances", pa.Table.from_pylist(rows, schema=schema)) == (date(2026, 1, 2),)


def test_airflows_history_is_kept_for_a_quarter(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    command = clean_airflow.clean_command(datetime(2026, 4, 1, tzinfo=UTC))
    options = ["--clean-before-timestamp", "2026-01-01T00:00:00+00:00", "--skip-archive", "--yes"]
    assert command[1:] == ["-m", "airflow", "db", "clean", *options]
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    opened = clean_airflow.clean_environment(profile)["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert opened == f"sqlite:///{profile.airflow.home}/airflow.db"


def test_a_step_whose_training_is_killed_ends_with_the_code_of_a_retry_and_says_why(
    profile: Profile,
    tmp_path: Path,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed = [sys.executable, "-c", f"import os; held = b'x' * 2**29; os.kill(os.getpid(), {signal.SIGKILL})"]
    monkeypatch.setattr(run_stage, "load_profile", lambda: profile)
    monkeypatch.setattr(run_stage, "load_pipeline", lambda *_: pipeline)
    monkeypatch.setattr(run_stage, "open_run", lambda *_: Run(tmp_path, DAY, {}))
    monkeypatch.setattr(run_stage, "write_spec", lambda *_: tmp_path / "codes" / "spec.json")
    monkeypatch.setattr(run_stage, "build_command", lambda *_: killed)
    arguments = ["run", "--stage", "codes", "--system", "toy", "--run-id", "r", "--partition", str(DAY)]
    monkeypatch.setattr(sys, "argv", ["run_stage", *arguments])
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(run_stage.main)
    assert ended.value.code == EXIT_TRANSIENT
    said = capsys.readouterr().err
    assert "error: Training stage 'codes' was killed by the system, most likely out of memory." in said
    assert "GiB at its peak" in said and "PLUMBLINE__TRAINING_PRESET" in said
