"""The nightly lists: one row per user, version and rank, of real items; a kill costs a shard and no more."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from common.models import ModelVersion
from infra.profile import CHECKOUT
from tests.recommender_kit import ITEMS, package_recommender, write_catalogue, write_histories
from tests.unit.training.alignment_kit import write_start
from tests.unit.training.ranker_kit import with_ranker
from training.core.batch_inference import shard_of
from training.core.errors import DataError, Preempted
from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.serve import Recommender, load
from training.generative_rec.stages import recommend
from training.generative_rec.stages.recommend import HISTORIES as HISTORIES_TABLE

# u0 has a code of its own; `gone` is no item of the catalogue; u3 is left with nothing that the model knows.
HISTORIES = {"u0": ["i1", "i2"], "u1": ["gone", "i3"], "u2": [], "u3": ["gone"]}
HISTORIES |= {f"v{n}": [ITEMS[n % 24], ITEMS[n * 7 % 24]] for n in range(21)}
SMALL = {"top": 20, "shard_users": 5}
ROLES = {"4": "champion", "5": "challenger"}

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {name: str(package_recommender(root / name, seed)) for name, seed in (("4", 1), ("5", 2))}


@pytest.fixture
def spec(models: dict[str, str], tmp_path: Path) -> StageSpec:
    files = {
        HISTORIES_TABLE: write_histories(tmp_path / "histories.parquet", HISTORIES),
        "items": write_catalogue(tmp_path / "items.parquet"),
    }
    tables = {name: TableRef((str(file),)) for name, file in files.items()}
    return with_roles(StageSpec("generative_rec", "recommend", str(tmp_path / "out"), 1, tables, config=SMALL), models)


def with_roles(spec: StageSpec, models: dict[str, str], roles: Mapping[str, str] = ROLES) -> StageSpec:
    """Asked about these versions."""
    return replace(spec, models={"m": tuple(ModelVersion(v, role, models[v]) for v, role in roles.items())})


def rows_of(spec: StageSpec) -> Rows:
    rows: Rows = pq.read_table(spec.out_dir / "tables/recommendations/part-0.parquet").to_pylist()
    return sorted(rows, key=lambda row: (row["model_version"], row["user_id"], row["rank"]))


def shard_files(spec: StageSpec) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in spec.out_dir.glob("shards/*/*/part-0.parquet")}


def test_every_user_has_each_rank_once_of_each_version_and_every_item_is_of_the_catalogue(spec: StageSpec) -> None:
    run_stage(spec, recommend.main)
    rows = rows_of(spec)
    ranks = Counter((row["model_version"], row["user_id"], row["rank"]) for row in rows)
    assert ranks == {(v, user, rank): 1 for v in ("4", "5") for user in HISTORIES for rank in range(1, 21)}
    assert {row["item_id"] for row in rows} <= set(ITEMS)
    assert {(row["model_version"], row["role"]) for row in rows} == {("4", "champion"), ("5", "challenger")}
    items = Counter((row["model_version"], row["user_id"], row["item_id"]) for row in rows)
    assert set(items.values()) == {1}


def test_a_night_after_which_nobody_was_active_makes_no_lists_and_says_why(spec: StageSpec, tmp_path: Path) -> None:
    write_histories(tmp_path / "histories.parquet", {})
    run_stage(spec, recommend.main)
    assert json.loads((spec.out_dir / "result.json").read_text())["left_out"] == (
        f"the query {HISTORIES_TABLE} has found no row"
    )


def test_the_lists_are_those_of_the_packaged_model(spec: StageSpec, models: dict[str, str]) -> None:
    run_stage(spec, recommend.main)
    rows = rows_of(spec)
    for version, folder in models.items():
        lists = Recommender.load(folder).recommend(list(HISTORIES.values()), 20, users=list(HISTORIES))
        for user, expected in zip(HISTORIES, lists, strict=True):
            found = [row for row in rows if (row["model_version"], row["user_id"]) == (version, user)]
            assert [row["item_id"] for row in found] == [item for item, _ in expected]
            assert [row["log_prob"] for row in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_a_killed_run_decodes_no_finished_shard_again_and_ends_with_the_same_rows(
    spec: StageSpec, tmp_path: Path
) -> None:
    whole = replace(spec, out=str(tmp_path / "whole"))
    run_stage(whole, recommend.main)
    # A process of its own, which is killed while it decodes the third shard of version 4.
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from training.core.stage import StageSpec\n"
        "from training.generative_rec.stages import recommend\n"
        "from training.generative_rec.serve import Recommender\n"
        "calls, real = [], Recommender.answer\n"
        "def dying(*args, **kwargs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args, **kwargs)\n"
        "Recommender.answer = dying\n"
        "recommend.main(StageSpec.load(Path(sys.argv[1])))\n"
    )
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(asdict(spec)))
    spec.out_dir.mkdir()
    died = subprocess.run([sys.executable, "-c", code, str(file)], cwd=CHECKOUT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    before = shard_files(spec)
    assert len(before) == 2
    assert not (spec.out_dir / "tables").exists()
    run_stage(spec, recommend.main)
    after = shard_files(spec)
    assert {file: after[file] for file in before} == before
    assert len(after) == 2 * 5  # 25 users of two versions, 5 a shard
    assert rows_of(spec) == rows_of(whole)


def test_a_new_role_and_a_further_version_decode_nothing_that_was_decoded(
    spec: StageSpec, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = with_roles(spec, models, {"5": "challenger"})
    run_stage(alone, recommend.main)
    before = shard_files(alone)
    run_stage(spec, recommend.main)
    after = shard_files(spec)
    assert {file: after[file] for file in before} == before
    assert len(after) == 2 * len(before)

    def nothing(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was decoded before")

    monkeypatch.setattr(recommend, "load", nothing)
    run_stage(with_roles(alone, models, {"5": "champion"}), recommend.main)
    assert {(row["model_version"], row["role"]) for row in rows_of(alone)} == {("5", "champion")}


def test_sigterm_stops_between_two_writes_with_the_code_for_a_retry(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = Recommender.answer

    def preempted(self: Recommender, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "answer", preempted)
    with pytest.raises(Preempted) as stopped:
        run_stage(spec, recommend.main)
    assert stopped.value.exit_code == 75
    assert len(shard_files(spec)) == 1


def test_other_histories_are_decoded_anew(spec: StageSpec, tmp_path: Path) -> None:
    run_stage(spec, recommend.main)
    before = shard_files(spec)
    tomorrow = write_histories(tmp_path / "tomorrow.parquet", HISTORIES | {"u2": ["i5"]})
    run_stage(replace(spec, tables={**spec.tables, HISTORIES_TABLE: TableRef((str(tomorrow),))}), recommend.main)
    assert len(shard_files(spec)) == 2 * len(before)


@pytest.mark.parametrize("gone", [ITEMS[:5], ITEMS[::2], ITEMS[1:], []])
def test_a_part_of_the_catalogue_is_ranked_as_the_whole_without_the_rest(
    models: dict[str, str], gone: list[str]
) -> None:
    model, histories = Recommender.load(models["4"]), list(HISTORIES.values())
    kept = [item for item in ITEMS if item not in gone]
    whole = model.recommend(histories, len(ITEMS), users=list(HISTORIES))
    part = model.recommend(histories, 20, users=list(HISTORIES), within=kept)
    for line, expected in zip(part, whole, strict=True):
        assert [item for item, _ in line] == [item for item, _ in expected if item in kept][:20]


@pytest.mark.parametrize(
    ("own", "rankers", "expected"),
    [
        ("champion", "champion", [("4", "champion")]),
        ("baseline", "champion challenger", [("ranker", "baseline")]),
        ("challenger baseline", "challenger baseline", [("ranker", "baseline"), ("4", "challenger")]),
        ("", "challenger", [("ranker", "baseline")]),
        ("baseline", "baseline", [("4", "baseline")]),
        ("", "baseline", [("5", "baseline")]),
        ("", "", []),
    ],
)
def test_the_ranker_alone_stands_in_for_a_champion_that_there_is_not(
    own: str, rankers: str, expected: list[tuple[str, str]]
) -> None:
    models = {
        "generative_rec": [ModelVersion("4", role, "generator") for role in own.split()],
        "ranker": [ModelVersion("5", role, f"ranker {role}") for role in rankers.split()],
    }
    found = recommend._makers(models)
    assert [(one.version, one.role) for one in found] == expected
    stands_in = [one.folder for one in found if one.version == "ranker"]
    assert stands_in == [f"ranker {rankers.split()[0]}" for _ in stands_in]


def test_what_is_sold_out_is_in_no_list_and_a_shop_that_is_sold_out_is_told_so(spec: StageSpec, tmp_path: Path) -> None:
    for name, sold_out in (("some", ITEMS[:4]), ("all", ITEMS)):
        day = write_catalogue(tmp_path / f"{name}.parquet", ITEMS, sold_out)
        today = replace(spec, tables={**spec.tables, "items": TableRef((str(day),))}, out=str(tmp_path / name))
        if name == "all":
            with pytest.raises(DataError, match="nothing is in stock"):
                run_stage(today, recommend.main)
        else:
            run_stage(today, recommend.main)
            assert {row["item_id"] for row in rows_of(today)} == set(ITEMS[4:])


@pytest.mark.parametrize("rank_own", [True, False])
def test_what_a_user_has_taken_stands_in_a_list_only_where_the_shop_recommends_it(
    spec: StageSpec, tmp_path: Path, rank_own: bool
) -> None:
    """As the model was measured: the generator alone, and the ranker and its signals."""
    generator = str(package_recommender(tmp_path / "generator", 3, rank_own=rank_own))
    sample = with_ranker(write_start(tmp_path), tmp_path / "ranker", ITEMS, rank_own=rank_own)
    ranker = sample.models["ranker"][0].folder
    run_stage(with_roles(spec, {"4": generator, "5": ranker}), recommend.main)
    own = {row["model_version"] for row in rows_of(spec) if row["item_id"] in HISTORIES[row["user_id"]]}
    assert own == ({"4", "5"} if rank_own else set())
    for folder in (generator, ranker):
        frame = pd.DataFrame({"history": [["i1", "i2"]]})
        assert bool({"i1", "i2"} & set(load(folder).predict(frame, {"k": 24})["items"][0])) is rank_own


def test_what_left_the_catalogue_is_in_no_list_and_comes_back_with_it(spec: StageSpec, tmp_path: Path) -> None:
    run_stage(spec, recommend.main)
    before = rows_of(spec)
    fewer = write_catalogue(tmp_path / "fewer.parquet", [*ITEMS[4:], "new"])
    run_stage(replace(spec, tables={**spec.tables, "items": TableRef((str(fewer),))}), recommend.main)
    lists = Counter((row["model_version"], row["user_id"]) for row in rows_of(spec))
    assert {row["item_id"] for row in rows_of(spec)} <= set(ITEMS[4:]) and set(lists.values()) == {20}
    run_stage(spec, recommend.main)
    assert rows_of(spec) == before


def test_a_model_that_knows_nothing_of_the_catalogue_is_refused(spec: StageSpec, tmp_path: Path) -> None:
    other = write_catalogue(tmp_path / "other.parquet", ["new"])
    with pytest.raises(DataError, match="version 4 knows no item of the catalogue"):
        run_stage(replace(spec, tables={**spec.tables, "items": TableRef((str(other),))}), recommend.main)


def test_without_a_model_the_stage_is_left_out_and_says_why(spec: StageSpec) -> None:
    run_stage(replace(spec, models={"m": ()}), recommend.main)
    result = json.loads((spec.out_dir / "result.json").read_text())
    assert result["left_out"].startswith("there is nothing to make lists with: no version was promoted")
    assert result["tables"] == {}


def test_a_list_with_an_item_outside_of_the_catalogue_stops_all_of_them(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(spec, recommend.main)
    before = rows_of(spec)
    real = Recommender.answer

    def strange(self: Recommender, *asked: Any) -> Any:
        return [[("gone", -1.0), *line[1:]] for line in real(self, *asked)]

    monkeypatch.setattr(Recommender, "answer", strange)
    with pytest.raises(DataError, match="1 items of the lists are not in the catalogue of the day"):
        run_stage(replace(spec, config={**SMALL, "top": 5}), recommend.main)
    assert rows_of(spec) == before


def test_a_user_with_two_histories_is_refused(spec: StageSpec) -> None:
    twice = spec.tables[HISTORIES_TABLE].files * 2
    with pytest.raises(DataError, match="a user_id is there twice"):
        run_stage(replace(spec, tables={**spec.tables, HISTORIES_TABLE: TableRef(twice)}), recommend.main)


def test_progress_tells_rate_and_time_left(spec: StageSpec, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(spec, recommend.main)
    assert "recommend: 50/50 lists" in capsys.readouterr().err


def test_the_shard_of_a_user_depends_on_nothing_but_the_user() -> None:
    shards = [shard_of(f"user {n}", 7) for n in range(700)]
    assert set(shards) == set(range(7))
    assert max(Counter(shards).values()) < 150
