"""A model's whole life in a real MLflow: logged, registered, gated, promoted, rolled back, repaired after a kill."""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pytest

from infra.errors import DataError
from infra.lake import Lake
from infra.launch import CHECKPOINTS
from infra.profile import Profile
from registry import aliases, decisions, packaging, runs
from registry.__main__ import main
from registry.promotions import GateNotPassed, Promotions
from registry.stage_gates import stage_gates
from registry.store import connect
from tests.registry_kit import MODEL, USERS, Toy, empty_store, finish_stage, profile, publish_day, train

__all__ = ["empty_store", "profile"]


def test_a_stage_run_is_logged_once_with_its_params_metrics_inputs_and_files(profile: Profile, tmp_path: Path) -> None:
    out = finish_stage(tmp_path / "run", "sft", snapshot=7)
    run_id = runs.log_stage(profile, out, out)
    assert runs.log_stage(profile, out, out) == run_id
    client = connect(profile)
    run = client.get_run(run_id)
    assert run.data.params == {"seed": "17", "loop.lr": "0.001", "loop.steps": "3", "layers": "[1, 2]"}
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [
        (1, 3.0),
        (2, 2.0),
        (3, 1.0),
    ]
    assert run.data.metrics["sft.coverage_at_10"] == 0.5
    assert run.data.tags["plumbline.snapshot.user_stats"] == "7"
    assert run.data.tags["plumbline.origin"] == "real"
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, json.loads(given.dataset.source)["snapshot"]) == ("user_stats", 7)
    assert {file.path for file in client.list_artifacts(run_id)} >= {"config.yaml", "metrics.jsonl", "spec.json"}
    assert run.info.artifact_uri.startswith(profile.home.joinpath("mlflow", "artifacts", "toy").as_uri())


def test_logging_that_was_killed_half_way_is_completed_in_the_same_run(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = finish_stage(tmp_path / "run", "sft", snapshot=7)
    with monkeypatch.context() as broken:
        broken.setattr(runs, "_manifest", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runs.log_stage(profile, out, out)
    run_id = runs.log_stage(profile, out, out)
    client = connect(profile)
    found = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert [(run.info.run_id, run.info.status) for run in found] == [(run_id, "FINISHED")]
    assert len(client.get_metric_history(run_id, "loss")) == 3


def test_a_chain_in_which_each_stage_reads_all_before_is_walked_once(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: dict[str, Path] = {}
    for n in range(8):
        before = {name: str(folder) for name, folder in folders.items()}
        folders[f"s{n}"] = finish_stage(tmp_path, f"s{n}", snapshot=n, artifacts=before)
        last = runs.log_stage(profile, folders[f"s{n}"], folders[f"s{n}"])
    looked_up, at = list[Path](), runs._at
    monkeypatch.setattr(
        runs, "_at", lambda client, place, folder: looked_up.append(folder) or at(client, place, folder)
    )
    found = runs.lineage(connect(profile), last)
    assert [run.data.tags["plumbline.stage"] for run in found] == [f"s{n}" for n in range(8)]
    assert len(looked_up) == 7 + 6 + 5 + 4 + 3 + 2 + 1  # one for each name of an earlier stage; along all paths, 127


def test_neither_training_state_nor_what_a_killed_write_left_is_hashed_or_uploaded(
    profile: Profile, tmp_path: Path
) -> None:
    out = finish_stage(tmp_path / "run", "sft", snapshot=7)
    for folder in (CHECKPOINTS, f"leave_one_out/{CHECKPOINTS}/last", ".model.k3x"):
        (out / folder).mkdir(parents=True)
        (out / folder / "cursor.json").write_text("{}")
    run_id = runs.log_stage(profile, out, out)
    client = connect(profile)
    manifest = json.loads(Path(client.download_artifacts(run_id, "files.json", str(tmp_path))).read_text())
    assert "metrics.jsonl" in manifest["files"] and not [name for name in manifest["files"] if "cursor" in name]
    assert not {file.path for file in client.list_artifacts(run_id)} & {CHECKPOINTS, "leave_one_out", ".model.k3x"}


def test_a_stage_that_has_not_finished_cannot_be_logged(profile: Profile, tmp_path: Path) -> None:
    out = finish_stage(tmp_path / "run", "sft", snapshot=7)
    (out / "result.json").unlink()
    with pytest.raises(DataError, match=r"result\.json is not there"):
        runs.log_stage(profile, out, out)


def test_a_card_says_which_stages_their_own_gates_left_out(profile: Profile, tmp_path: Path) -> None:
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    stage = finish_stage(tmp_path / "run", "rf_hard", snapshot=snapshot)
    result = json.loads((stage / "result.json").read_text())
    (stage / "result.json").write_text(json.dumps({**result, "metrics": {"accepted": 0.0}}))
    (stage / "gate.json").write_text(json.dumps({"accepted": False, "reason": "NDCG@10 fell from 0.2 to 0.1"}))
    runs.log_stage(profile, stage, stage)
    out = finish_stage(tmp_path / "run", "evaluate", snapshot=snapshot, hits=20, artifacts={"rf_hard": str(stage)})
    version = packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
    card = connect(profile).get_model_version(MODEL, version).description
    assert "| rf_hard | left out | NDCG@10 fell from 0.2 to 0.1 |" in card


def test_a_model_lives_from_registration_to_rollback(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first_snapshot = publish_day(profile, date(2018, 1, 5), 3)
    first = train(profile, tmp_path / "one", snapshot=first_snapshot, hits=20)
    client, ledger = connect(profile), Promotions(profile)

    # The lake keeps what the model was made from.
    assert [version.tags for version in Lake(profile).history("user_stats")] == [(f"model-{MODEL}-v{first}",)]
    # Registering again is the same version.
    out = tmp_path / "one" / "evaluate"
    assert packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out) == first

    # No gate, no promotion; a passed gate makes it the challenger; promoting makes it the champion.
    with pytest.raises(GateNotPassed, match="never held"):
        decisions.promote(profile, MODEL, who="ada")
    report = decisions.hold_gate(profile, MODEL)
    assert report.passed and report.champion is None
    assert aliases.aliases(client, MODEL) == {"challenger": first}
    decisions.promote(profile, MODEL, who="ada", reason="first")
    assert aliases.aliases(client, MODEL) == {"champion": first}

    # A better second version, on more data.
    second = train(profile, tmp_path / "two", snapshot=publish_day(profile, date(2018, 1, 6), 4), hits=40)
    assert decisions.hold_gate(profile, MODEL).passed
    card = client.get_model_version(MODEL, second).description
    assert "+4 rows; 1 partitions differ; 1 files new, 0 gone" in card
    assert "| gain over the champion, paired | 0.3333" in card
    assert "| all | 5.0 | 2000 |" in card  # two stages of 2.5 s and 1000 tokens
    gain = decisions.compare(profile, MODEL)[0].gain
    assert gain is not None and gain.value == pytest.approx(20 / USERS)
    assert 0 < gain.lo < gain.value < gain.hi
    decisions.promote(profile, MODEL, who="ada", reason="better")

    # A kill between the ledger row and the alias: the next command repairs it.
    client.set_registered_model_alias(MODEL, "champion", first)
    monkeypatch.setattr(sys, "argv", ["registry", "gate", "--model", MODEL, "--version", first])
    assert main() == 65  # the old version is worse than the champion
    assert aliases.aliases(client, MODEL) == {"champion": second}
    assert "gate failed: recall@10 vs champion" in capsys.readouterr().out.replace("\n", "")

    # A worse third version fails its gate and is never the challenger.
    third = train(profile, tmp_path / "three", snapshot=first_snapshot, hits=10)
    assert not decisions.hold_gate(profile, MODEL).passed
    assert client.get_model_version(MODEL, third).tags["plumbline.gate"] == "failed"
    assert "challenger" not in aliases.aliases(client, MODEL)
    with pytest.raises(GateNotPassed, match="recall@10 vs champion"):
        decisions.promote(profile, MODEL, who="ada")
    with pytest.raises(GateNotPassed, match="needs a reason"):
        decisions.promote(profile, MODEL, who="ada", override=True)
    assert decisions.promote(profile, MODEL, who="eve", override=True, reason="an experiment").override

    back = decisions.rollback(profile, MODEL, who="ada", reason="it was a bad idea")
    assert (back.from_version, back.to_version) == (third, second)
    assert aliases.aliases(client, MODEL) == {"champion": second}
    with pytest.raises(DataError, match="Every version"):
        decisions.reject(profile, MODEL, who="ada", reason="late")
    # Retries add nothing: the champion promoted again, the rejected rejected again.
    assert decisions.promote(profile, MODEL, second, who="ada") == back
    refused = decisions.reject(profile, MODEL, third, who="ada", reason="no")
    assert decisions.reject(profile, MODEL, third, who="ada", reason="no") == refused
    assert [row.decision for row in ledger.history(MODEL)] == ["promote", "promote", "promote", "rollback", "reject"]
    monkeypatch.setattr(sys, "argv", ["registry", "history", "--model", MODEL])
    assert main() == 0
    assert f"(now): {second}" in capsys.readouterr().out


def test_a_champion_of_before_a_metric_was_measured_is_compared_by_the_others(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    out = finish_stage(tmp_path / "old", "evaluate", snapshot=snapshot, hits=20)
    file = out / "tables" / "eval_values" / "part-0.parquet"
    values = pd.read_parquet(file)
    values[values["name"] != "ndcg@10"].to_parquet(file)
    old = packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
    decisions.promote(profile, MODEL, old, who="ada", override=True, reason="the first")
    train(profile, tmp_path / "new", snapshot=snapshot, hits=40)
    recall, ndcg = decisions.compare(profile, MODEL)
    assert recall.gain is not None and recall.gain.value == pytest.approx(20 / USERS)
    assert (ndcg.champion, ndcg.gain, ndcg.challenger.value) == (None, None, pytest.approx(40 / USERS))
    monkeypatch.setattr(sys, "argv", ["registry", "compare", "--model", MODEL])
    assert main() == 0
    assert "not measured" in capsys.readouterr().out


def test_a_changed_weight_file_is_refused_at_load(profile: Profile, tmp_path: Path) -> None:
    import mlflow

    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    version = train(profile, tmp_path / "one", snapshot=snapshot, hits=20)
    uri = f"models:/{MODEL}/{version}"
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    answer = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"text": ["three"]}), params={"letters": 9})
    assert answer["label"].tolist() == ["toy three"]
    assert {"training", "common"} <= {room.name for room in (folder / "code").iterdir()}  # what it needs elsewhere
    (kept,) = folder.rglob("label.json")
    kept.write_text(json.dumps(["other"]))
    with pytest.raises(ValueError, match="not the file that was registered"):
        mlflow.pyfunc.load_model(uri)


@pytest.mark.parametrize("answered", [["", "two"], [None, "two"], ["one"]], ids=["empty", "null", "a row too few"])
def test_a_model_that_cannot_answer_its_example_gets_no_version(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: list[str | None]
) -> None:
    monkeypatch.setattr(Toy, "predict", lambda self, frame, params: pd.DataFrame({"label": answered}))
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    with pytest.raises(DataError, match="does not answer its own example"):
        train(profile, tmp_path / "one", snapshot=snapshot, hits=20)
    with pytest.raises(DataError, match="No version"):
        aliases.versions(connect(profile), MODEL)


def test_a_run_is_named_after_its_stage_and_folder_names_its_code_and_lasted_as_long_as_the_stage(
    profile: Profile, tmp_path: Path
) -> None:
    out = finish_stage(tmp_path / "2018-01-05-abc", "sft", snapshot=7)
    run = connect(profile).get_run(runs.log_stage(profile, out, out))
    info = run.info
    assert run.data.tags["mlflow.source.name"] == "training.toy.stages.sft"
    assert info.run_name == "sft 2018-01-05-abc"
    assert info.end_time == int((out / "result.json").stat().st_mtime * 1000)
    assert info.end_time - info.start_time == 2500


def test_the_pages_of_experiment_and_model_say_what_they_show_and_who_moves_the_aliases(
    profile: Profile, tmp_path: Path
) -> None:
    train(profile, tmp_path / "one", snapshot=publish_day(profile, date(2018, 1, 5), 3), hits=20)
    client = connect(profile)
    assert "training/toy/pipeline.yaml" in client.get_experiment_by_name("toy").tags["mlflow.note.content"]
    assert "python -m registry" in client.get_registered_model(MODEL).description


@pytest.mark.parametrize("lost", ["signature.json", "example.parquet"])
def test_a_model_folder_that_does_not_describe_itself_is_refused_in_words(
    profile: Profile, tmp_path: Path, lost: str
) -> None:
    out = finish_stage(tmp_path / "one", "evaluate", snapshot=publish_day(profile, date(2018, 1, 5), 3), hits=20)
    (out / "model" / lost).unlink()
    with pytest.raises(DataError, match=rf"(?s)does not describe itself.*{lost}"):
        packaging.register(profile, MODEL, runs.log_stage(profile, out, out), out, out)
    with pytest.raises(DataError, match="No version"):
        aliases.versions(connect(profile), MODEL)


def test_a_version_of_before_values_were_left_is_served_on_and_its_successor_fails_the_gate_with_a_way_out(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As such a run lies in the store: its evaluation is ranks, and nothing describes its folder."""
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    first = train(profile, tmp_path / "one", snapshot=snapshot, hits=20)
    decisions.hold_gate(profile, MODEL)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    client = connect(profile)
    run = client.get_run(client.get_model_version(MODEL, first).run_id)
    evaluation = Path(url2pathname(urlsplit(run.info.artifact_uri).path)) / "evaluation"
    (evaluation / "eval_values").rename(evaluation / "eval_ranks")
    second = train(profile, tmp_path / "two", snapshot=snapshot, hits=40)
    report = decisions.hold_gate(profile, MODEL, second)
    (failed,) = report.failed
    assert failed.name == "recall@10 vs champion" and f"version {first} left no recall@10" in failed.reason
    assert (packaging.unpack(profile, MODEL, first, tmp_path / "served") / "label.json").is_file()
    decisions.promote(profile, MODEL, second, who="ada", override=True, reason="the first of its kind")
    third = train(profile, tmp_path / "three", snapshot=snapshot, hits=40)
    assert decisions.hold_gate(profile, MODEL, third).passed  # the old one is not met any more


def test_compare_shows_both_versions_and_the_paired_gain_by_metric(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = publish_day(profile, date(2018, 1, 5), 3)
    train(profile, tmp_path / "one", snapshot=snapshot, hits=15)
    decisions.hold_gate(profile, MODEL)
    decisions.promote(profile, MODEL, who="ada", reason="first")
    train(profile, tmp_path / "two", snapshot=snapshot, hits=45)
    monkeypatch.setattr(sys, "argv", ["registry", "compare", "--model", MODEL])
    monkeypatch.setenv("COLUMNS", "200")
    assert main() == 0
    said = capsys.readouterr().out
    assert f"{MODEL}: {USERS} samples, real data, intervals by user" in said
    (line,) = [line for line in said.splitlines() if "recall@10" in line]
    champion, challenger, gain = re.findall(r"\d\.\d{4} \[(?:\d\.\d{4}(?:, )?){2}\]", line)
    assert [cell.split()[0] for cell in (champion, challenger, gain)] == ["0.2500", "0.7500", "0.5000"]
    assert "ndcg@10" in said


def test_every_stage_gate_is_read_with_its_figures_and_what_never_began_has_none(
    profile: Profile, tmp_path: Path
) -> None:
    judged = {"metric": "ndcg@10", "start": 0.3, "before": 0.2, "after": 0.1, "lower": -0.12, "note": "18 preferences"}
    records = {
        "sp": {"accepted": True, "reason": "", **judged},
        "sft": {"accepted": False, "reason": "the shop is too small"},
        "older": {"stands": True, "reason": ""},  # logged before the key had its present name
        "plain": None,
    }
    for stage, record in records.items():
        out = finish_stage(tmp_path / "2018-01-05-abc", stage, snapshot=7)
        if record is not None:
            (out / "gate.json").write_text(json.dumps(record))
        runs.log_stage(profile, out, out)
    client = connect(profile)
    found = {gate.stage: gate for gate in stage_gates(client, client.search_runs(["1"]))}
    assert set(found) == {"sp", "sft", "older"} and found["older"].accepted
    sp, sft = found["sp"], found["sft"]
    assert (sp.run, sp.system, sp.accepted, sp.note) == ("2018-01-05-abc", "toy", True, "18 preferences")
    assert (sp.start, sp.before, sp.after, sp.lower, sp.metric) == (0.3, 0.2, 0.1, -0.12, "ndcg@10")
    assert (sft.accepted, sft.reason, sft.metric, sft.after) == (False, "the shop is too small", None, None)
