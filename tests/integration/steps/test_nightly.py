"""Nightly recommendations on a real lake and registry: from no model to champion and challenger side by side."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from common.pipelines import Pipeline, load_pipeline
from dags.steps import _models, decide, gate_report, run_stage
from dags.steps._publish import publish_rows
from feature_store.training_sets import NEXT_ITEM, build_training_set
from infra.contracts import UNDATED, arrow_schema, load_contract
from infra.errors import DataError
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.results import RESULT_FILE
from infra.systems import stages_of
from registry import decisions, packaging, runs
from registry.promotions import Decision, Promotions
from registry.store import connect
from spark_jobs import market_replay
from spark_jobs.engine.job import run as job_run
from tests import told_shop_kit
from tests.lake_kit import put
from tests.recommender_kit import ITEMS, package_recommender
from tests.registry_kit import GATE, MODEL, finish_stage, publish_day
from tests.unit.training.sample_kit import write_rows
from training.core.stage import StageSpec, TableRef
from training.core.stage import run_stage as run_stage_of
from training.next_item.samples import read_samples
from training.ranker.serve import package, package_baseline
from training.ranker.shop import Shop
from training.ranker.signals.fitting import SignalsConfig
from training.ranker.stages import ranker

DAY = date(2018, 1, 5)
# ann came yesterday, bob today (and met an item that no model knows), old long ago.
DAYS = {"ann": [DAY - timedelta(1)], "bob": [DAY - timedelta(3), DAY], "old": [DAY - timedelta(200)]}


def _rows(table: str, lines: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(load_contract(table))])
    return pa.Table.from_pylist(lines, schema=schema)


@pytest.fixture
def lake(profile: Profile) -> Lake:
    """Events and histories of three users up to the day, published."""
    visits = [(user, day, past) for user, days in DAYS.items() for past, day in enumerate(days)]
    at = {day: datetime(day.year, day.month, day.day, 9, tzinfo=UTC) for _, day, _ in visits}
    events: list[dict[str, Any]] = [
        {"event_date": day, "user_id": user, "item_id": item, "event_time": at[day], "event_type": "view"}
        for user, day, past in visits
        for item in (["i1"] if past == 0 else ["gone", "i2"])
    ]
    histories = [
        {"history_date": day, "user_id": user, "as_of": at[day], "item_ids": ["i1"] * past, "history_len": past}
        | {"ratings": [None] * past, "event_dates": [DAYS[user][0]] * past}
        for user, day, past in visits
    ]
    put(profile, "events", _rows("events", events))
    put(profile, "histories", _rows("histories", histories))
    deliver(profile, UNDATED, ITEMS)
    return Lake(profile)


def deliver(profile: Profile, day: date, items: Sequence[str]) -> None:
    """A delivery of the catalogue."""
    lines = [{"snapshot_date": day, "item_id": item, "source": "shop", "title": item} for item in items]
    put(profile, "items", _rows("items", lines))


@pytest.fixture
def pipeline(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """That of generative_rec, under the name that the test's gate knows."""
    loaded = load_pipeline("generative_rec", profile.training_preset)
    (job,) = loaded.jobs
    stage = replace(job.stage, reads=replace(job.stage.reads, models=(MODEL,)))
    found = replace(loaded, models={MODEL: "evaluate"}, jobs=(replace(job, stage=stage),))
    monkeypatch.setattr(run_stage, "load_pipeline", lambda system, preset: found)
    monkeypatch.setattr(_models, "read_pipeline", lambda system: found)
    monkeypatch.setattr(_models, "owner", lambda model, chosen: "generative_rec")
    return found


def register(profile: Profile, folder: Path, seed: int, hits: int) -> str:
    """A real recommender with random weights, registered with a passed gate; its version."""
    out = finish_stage(folder, "evaluate", snapshot=publish_day(profile, DAY, seed), hits=hits)
    shutil.rmtree(out / "model")
    package_recommender(folder / "made", seed).rename(out / "model")
    spec = json.loads((out / "spec.json").read_text())
    (out / "spec.json").write_text(json.dumps({**spec, "system": "generative_rec"}))
    version = packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
    assert decisions.hold_gate(profile, MODEL, version).passed
    return version


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, day: date = DAY) -> Any:
    """The job, as its DAG asks for it; what it hands on."""
    result = folder / "handed-on.json"
    monkeypatch.setenv(RESULT_FILE, str(result))
    job = ["--system", "generative_rec", "--job", "nightly_recommend"]
    monkeypatch.setattr(sys, "argv", ["run_stage", "run", *job, "--run-id", "r", "--partition", day.isoformat()])
    assert run_stage.main() == 0
    return json.loads(result.read_text())


def published(lake: Lake) -> list[dict[str, Any]]:
    return [row for file in lake.files("recommendations") for row in pq.read_table(file.path).to_pylist()]


def test_the_active_users_get_twenty_items_of_champion_and_challenger(
    profile: Profile,
    lake: Lake,
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, tmp_path)
    assert published(lake) == []
    said = capsys.readouterr().out
    assert "toy has no champion yet, as nobody has promoted a version: no baseline was measured either" in said
    assert "recommend is left out: there is nothing to make lists with" in said

    first = register(profile, tmp_path / "one", seed=1, hits=20)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    spec = json.loads(Path(run(monkeypatch, tmp_path)["spec"]).read_text())
    asked = pq.read_table(spec["tables"]["active_histories"]["files"][0]).to_pylist()
    assert asked == [{"user_id": "ann", "item_ids": ["i1"]}, {"user_id": "bob", "item_ids": ["i1", "gone", "i2"]}]
    of_champion = published(lake)
    assert {(row["run_date"], row["model_version"], row["role"]) for row in of_champion} == {(DAY, first, "champion")}
    shards = {file: file.stat().st_mtime_ns for file in Path(spec["out"]).glob("shards/*/*/*.parquet")}
    assert len(shards) == 1

    second = register(profile, tmp_path / "two", seed=2, hits=40)
    run(monkeypatch, tmp_path)
    rows = published(lake)
    places = Counter((row["user_id"], row["model_version"], row["rank"]) for row in rows)
    assert places == {(user, v, rank): 1 for user in ("ann", "bob") for v in (first, second) for rank in range(1, 21)}
    assert {row["item_id"] for row in rows} <= set(ITEMS)
    assert {(row["model_version"], row["role"]) for row in rows} == {(first, "champion"), (second, "challenger")}
    key = ("user_id", "rank", "item_id", "log_prob")
    of_first = {tuple(row[name] for name in key) for row in rows if row["model_version"] == first}
    assert of_first == {tuple(row[name] for name in key) for row in of_champion}
    assert {file: file.stat().st_mtime_ns for file in shards} == shards, "the champion's lists were decoded again"
    assert Ledger(profile).reconcile() == []


def listed(lake: Lake, day: date = DAY) -> dict[tuple[str, str], list[str]]:
    """The items of each list of a day, by user and maker, best first."""
    rows = sorted((row for row in published(lake) if row["run_date"] == day), key=lambda row: row["rank"])
    found = dict[tuple[str, str], list[str]]()
    for row in rows:
        found.setdefault((row["user_id"], row["model_version"]), []).append(row["item_id"])
    return found


def test_lists_hold_what_the_newest_catalogue_has_and_what_comes_back_is_listed_again(
    profile: Profile, lake: Lake, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(profile, tmp_path / "one", seed=1, hits=20)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    run(monkeypatch, tmp_path)
    before = listed(lake)
    gone = sorted({items[0] for items in before.values()} | set(ITEMS[:4]))[:4]
    deliver(profile, DAY, [item for item in ITEMS if item not in gone])
    run(monkeypatch, tmp_path)
    after = listed(lake)
    assert {len(items) for items in after.values()} == {20}  # 24 items, 4 of them gone
    assert not {item for items in after.values() for item in items} & set(gone)
    # A later delivery is not of this day; the same day's again, whole, is.
    deliver(profile, DAY + timedelta(1), ITEMS[:3])
    run(monkeypatch, tmp_path)
    assert listed(lake) == after
    deliver(profile, DAY, ITEMS)
    run(monkeypatch, tmp_path)
    assert listed(lake) == before


def test_without_a_champion_the_best_baseline_makes_the_lists_under_its_own_name(
    profile: Profile,
    lake: Lake,
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = stages_of(profile, pipeline.system) / f"{DAY}-1"
    rows = [(f"u{n}", DAY, datetime(2018, 1, 5, tzinfo=UTC), f"i{n % 3}", [], "train") for n in range(7)]
    write_shop_baseline(folder / "evaluate" / "baseline", rows, "popularity")
    (folder / "pins.json").write_text(json.dumps({"last": DAY.isoformat(), "pins": {}, "models": {}}))
    run(monkeypatch, tmp_path)
    assert "nobody has promoted a version: popularity stands in for it" in capsys.readouterr().out
    lists = listed(lake)
    assert set(lists) == {("ann", "popularity"), ("bob", "popularity")}
    assert all(items[:3] == ["i0", "i1", "i2"] and len(items) == 20 for items in lists.values())
    assert {row["role"] for row in published(lake)} == {"baseline"}
    register(profile, tmp_path / "one", seed=1, hits=20)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    run(monkeypatch, tmp_path)
    assert {row["role"] for row in published(lake)} == {"champion"}


def write_shop_baseline(folder: Path, rows: list[tuple[Any, ...]], name: str) -> None:
    """What an evaluation leaves for nights without a champion."""
    folder.parent.mkdir(parents=True)
    write_rows(folder.parent / "samples.parquet", rows)
    tables = {"next_item_training_set": TableRef((str(folder.parent / "samples.parquet"),))}
    samples = read_samples(StageSpec("generative_rec", "evaluate", "", 1, tables), "time")
    items = [{"item_id": item, "price": None, "category": None} for item in ITEMS]
    package(Shop(items, "time", True, 1, signals=SignalsConfig(sasrec=None)).fitted(samples), folder.parent / "signals")
    package_baseline(folder.parent / "signals", name, folder)


@pytest.mark.parametrize("left", [0, 1])
def test_a_champion_that_is_gone_from_mlflow_is_named_and_a_rollback_or_an_override_mends_it(
    profile: Profile, lake: Lake, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    first = register(profile, tmp_path / "one", seed=1, hits=20)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    others = [register(profile, tmp_path / f"more{n}", seed=2 + n, hits=40) for n in range(left)]
    run(monkeypatch, tmp_path)
    before = published(lake)
    client = connect(profile)
    client.delete_model_version(MODEL, first)
    with pytest.raises(DataError, match=f"Champion {first} of the ledger is gone from MLflow") as refusal:
        run(monkeypatch, tmp_path)
    assert refusal.value.exit_code == 65 and "registry rollback" in refusal.value.do
    assert published(lake) == before
    for version in others:
        with pytest.raises(DataError, match="is gone from MLflow"):
            decisions.hold_gate(profile, MODEL, version)
        decisions.promote(profile, MODEL, version, who="ada", override=True, reason="the first is gone")
        run(monkeypatch, tmp_path)
        assert {row["model_version"] for row in published(lake)} == {version}


def test_packed_files_that_are_gone_are_named(profile: Profile, tmp_path: Path) -> None:
    version = register(profile, tmp_path / "one", seed=1, hits=20)
    shutil.rmtree(profile.home / "mlflow" / "artifacts")
    with pytest.raises(DataError, match="packed files of a registered version are gone"):
        packaging.unpack(profile, MODEL, version, tmp_path / "models")


def nights(bad: dict[int, dict[str, Any]]) -> pa.Table:
    """Lists of ten users, with changes to some rows."""
    common = {"run_date": DAY, "model_version": "1", "role": "champion"}
    rows = [
        {**common, "user_id": f"u{user}", "rank": n, "item_id": f"i{n}", "log_prob": -float(n)}
        for user in range(10)
        for n in range(1, 21)
    ]
    return _rows("recommendations", [row | bad.get(place, {}) for place, row in enumerate(rows)])


def test_a_bad_row_goes_to_quarantine_and_a_bad_night_leaves_the_lists_of_before(profile: Profile, lake: Lake) -> None:
    publish_rows(profile, "recommendations", nights({19: {"log_prob": math.nan}, 39: {"item_id": "i1"}}))
    commit = Ledger(profile).committed("recommendations")[DAY]
    assert (commit.rows_in, commit.rows_out, commit.rows_quarantined) == (200, 198, 2)
    told = {result.rule: (result.rows_failed, result.status) for result in commit.rules}
    assert told["log_prob_finite"] == told["item_once_per_list"] == (1, "failed")
    assert told["rank_in_list"] == told["unique_key"] == told["expectation: The first place is filled"] == (0, "ok")
    (file,) = lake.files("recommendations_quarantine")
    assert sorted(row["rule"] for row in pq.read_table(file.path).to_pylist()) == [
        "item_once_per_list",
        "log_prob_finite",
    ]
    before = published(lake)
    with pytest.raises(DataError, match="recommendations of 2018-01-05 was not published") as refusal:
        publish_rows(profile, "recommendations", nights({place: {"role": "guess"} for place in range(3)}))
    assert "3 of 200 rows are bad (1.5%, at most 1.0%), most often by rule role_known (3)" in refusal.value.why
    assert published(lake) == before
    assert Ledger(profile).reconcile() == []


def test_a_day_whose_histories_are_not_there_is_refused(
    profile: Profile, lake: Lake, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="histories is not committed for 1 of the days"):
        run(monkeypatch, tmp_path, day=DAY + timedelta(1))


def test_a_registered_file_that_has_changed_is_refused(profile: Profile, tmp_path: Path) -> None:
    version = register(profile, tmp_path / "one", seed=1, hits=20)
    root = tmp_path / "models"
    assert packaging.unpack(profile, MODEL, version, root) == root / f"v{version}"
    assert sorted(file.name for file in (root / f"v{version}").iterdir()) == sorted(
        file.name for file in (tmp_path / "one" / "evaluate" / "model").iterdir()
    )
    (weights,) = profile.home.glob("mlflow/artifacts/**/artifacts/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="have changed"):
        packaging.unpack(profile, MODEL, version, tmp_path / "elsewhere")


class Promotion:
    """The DAG `promote_<model>` for one challenger, by flag: its lists, the replay, the gate, the decision."""

    def __init__(self, profile: Profile, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.profile, self.folder, self.patch = profile, folder, patch

    def by_flag(self, *, replayed: bool = True, **rule: Any) -> tuple[str, Decision]:
        """What the person would have read, and what the flag decided; `replayed`: whether the replay succeeds."""
        self.ask_market({"metric": "clicks", "margin": -100.0, **rule})
        run(self.patch, self.folder)
        if replayed:
            assert job_run(market_replay.JOB, DAY, DAY, self.profile).exit_code == 0
        asked = self._step(gate_report, "--model", MODEL)
        answer = ("--answer", "Approve", "--form", "{}", "--who", "flag")
        self._step(decide, "--model", MODEL, "--version", asked["version"], *answer)
        self.ask_market()
        return asked["text"], Promotions(self.profile).history(MODEL)[-1]

    def ask_market(self, *rules: dict[str, Any]) -> None:
        """From now on the gate has these rules of the market."""
        (self.folder / "gates" / f"{MODEL}.yaml").write_text(yaml.safe_dump({**GATE, "market": list(rules)}))

    def _step(self, step: Any, *arguments: str) -> Any:
        result = self.folder / "handed-on.json"
        result.unlink(missing_ok=True)
        self.patch.setattr(sys, "argv", [step.__name__, *arguments])
        assert step.main() == 0
        return json.loads(result.read_text()) if result.exists() else None


@pytest.fixture
def promotion(
    profile: Profile, lake: Lake, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Promotion:
    folder = stages_of(profile, pipeline.system) / f"{DAY}-1"
    rows = [(f"u{n}", DAY, datetime(2018, 1, 5, tzinfo=UTC), f"i{n % 3}", [], "train") for n in range(7)]
    write_shop_baseline(folder / "evaluate" / "baseline", rows, "popularity")
    (folder / "pins.json").write_text(json.dumps({"last": DAY.isoformat(), "pins": {}, "models": {}}))
    return Promotion(profile, tmp_path, monkeypatch)


def test_a_flag_decides_on_lists_that_were_played_from_the_first_promotion_on(
    profile: Profile, promotion: Promotion, tmp_path: Path, spark: SparkSession
) -> None:
    register(profile, tmp_path / "one", seed=1, hits=20)
    text, made = promotion.by_flag()
    assert "popularity, which stood in for a champion" in text and "simulated: 2 people, 10 days" in text
    assert (made.decision, made.to_version, made.who) == ("promote", "1", "flag")
    assert made.report is not None and made.report.market == "passed"

    register(profile, tmp_path / "two", seed=2, hits=40)
    text, made = promotion.by_flag(margin=100.0)
    assert "difference to version 1 " in text and "Gate failed" in text
    assert (made.decision, made.to_version) == ("reject", "2")
    assert (
        made.report is not None and made.report.market == "failed" and "clicks in the simulated market" in made.reason
    )


def test_without_a_replay_the_gate_file_says_whether_the_flag_may_promote(
    profile: Profile, promotion: Promotion, tmp_path: Path
) -> None:
    register(profile, tmp_path / "one", seed=1, hits=20)
    text, made = promotion.by_flag(replayed=False, required=True)
    assert (
        "| **no** | simulated: not played yet, and the gate file requires it: no night has lists of version 1" in text
    )
    assert (made.decision, made.report and made.report.market) == ("reject", "failed")
    register(profile, tmp_path / "two", seed=2, hits=40)
    text, made = promotion.by_flag(replayed=False)
    assert "| not played yet | simulated: no night has lists of version 2" in text
    assert (made.decision, made.report and made.report.market) == ("promote", "not played yet")


def test_a_version_that_a_gate_file_requires_to_be_played_gets_lists_for_it(
    profile: Profile, promotion: Promotion, tmp_path: Path, spark: SparkSession
) -> None:
    """Its gate is held once at registration, when it cannot have been played."""
    version = register(profile, tmp_path / "one", seed=1, hits=20)
    promotion.ask_market({"metric": "clicks", "margin": -100.0, "required": True})
    assert not decisions.hold_gate(profile, MODEL, version).passed
    text, made = promotion.by_flag(required=True)
    assert "Gate passed" in text and (made.decision, made.to_version) == ("promote", version)


def told_lake(profile: Profile) -> list[told_shop_kit.Visit]:
    """The shop of `told_shop_kit`, published: what the store says of a day is a row of the day before."""
    visits, one_day = list(told_shop_kit.visits()), timedelta(days=1)

    def at(day: date, hour: int = 0) -> datetime:
        return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)

    events, histories, samples = [], [], []
    for one in visits:
        event = {"user_id": one.user, "item_id": one.item, "event_time": at(one.day, 12), "event_type": "view"}
        nothing, size = [None] * len(one.history), len(one.history)
        past = {"history_item_ids": one.history, "history_ratings": nothing, "history_len": size}
        last = {"history_last_date": one.day - one_day if size else None}
        known = {"user_id": one.user, "as_of": at(one.day), "item_ids": one.history, "history_len": size}
        events.append({"event_date": one.day, **event})
        histories.append(
            {"history_date": one.day, **known, "ratings": nothing, "event_dates": [told_shop_kit.FIRST] * size}
        )
        split = {"split_time": one.part, "feedback": "unknown"}
        samples.append({"sample_date": one.day, "as_of": at(one.day), **event, **past, **last, **split})
    numbers = {(one.user, one.day - one_day): one.told for one in visits}
    ends = [one.user for one in visits if one.part == "test"]
    numbers |= {(user, visits[-1].day): (2, 30)[place % 2] for place, user in enumerate(ends)}
    counts = {"events_7d": 1, "events_365d": 30, "distinct_items_365d": 1, "days_since_first_365d": 0}
    stats = [
        {"stat_date": day, "user_id": user, "available_at": at(day + one_day), "events_30d": number, **counts}
        | {"last_event_time": at(day, 12), "profile_date": day, "profile_text": "a"}
        for (user, day), number in numbers.items()
    ]
    items = [{"snapshot_date": UNDATED, **item} for item in told_shop_kit.catalogue()]
    found = {"events": events, "histories": histories, "next_item_samples": samples, "items": items}
    for table, lines in {**found, "user_stats": stats, "user_profiles": stats}.items():
        put(profile, table, _rows(table, lines))
    return visits


def test_what_the_store_alone_knows_is_learnt_from_its_training_set_and_served_at_night(
    profile: Profile, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = told_lake(profile)
    last = visits[-1].day
    build_training_set(profile, NEXT_ITEM, told_shop_kit.FIRST, last)
    lake = Lake(profile)
    tables = {
        name: TableRef(tuple(file.path for file in lake.files(name))) for name in ("next_item_training_set", "items")
    }
    config = {**told_shop_kit.LEARNER, "store_features": [told_shop_kit.COLUMN]}
    run_stage_of(StageSpec("ranker", "ranker", str(tmp_path / "ranker"), 5, tables, config=config), ranker.main)
    folder = stages_of(profile, pipeline.system) / f"{last}-1"
    package_baseline(tmp_path / "ranker" / "model", "ranker", folder / "evaluate" / "baseline")
    (folder / "pins.json").write_text(json.dumps({"last": last.isoformat(), "pins": {}, "models": {}}))

    spec = json.loads(Path(run(monkeypatch, tmp_path, day=last)["spec"]).read_text())

    asked = pq.read_table(spec["tables"]["active_histories"]["files"][0]).to_pylist()
    told = {row["user_id"]: row[told_shop_kit.COLUMN] for row in asked}
    assert list(asked[0]) == ["user_id", "item_ids", told_shop_kit.COLUMN]
    assert len(told) == told_shop_kit.USERS and set(told.values()) == set(told_shop_kit.HALVES)
    lists = listed(lake, last)
    found = [told_shop_kit.inside(items[:6], told[user]) for (user, _), items in lists.items()]
    assert len(found) == told_shop_kit.USERS and sum(found) > 5 * len(found)  # by chance 3 of 6
    assert any("store" in row["reasons"] for row in published(lake))
