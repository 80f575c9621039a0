"""The tokenizer stage from tables to codes: what it writes, what it refuses; a killed run goes on to the same end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tests.unit.training.scid_kit import ITEMS, TOKENIZER, collaborative_spec, embed, walk, write_tables
from training.core.catalogue import read_catalogue
from training.core.errors import DataError, LeftOut, Preempted
from training.core.stage import StageSpec, TableRef
from training.core.trie import Trie
from training.generative_rec.collaborative_vectors import pooled_users
from training.generative_rec.interactions import Interactions, held_out_pairs
from training.generative_rec.item_codes import read_codes, read_early_codes, read_user_codes
from training.generative_rec.scid import inputs, training
from training.generative_rec.scid.training import TokenizerData
from training.generative_rec.stages import collaborative, scid_tokenizer
from training.next_item.samples import TABLE, NextItem, before_held_out, held_out_from, read_samples


@pytest.fixture(autouse=True)
def cheap_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "embed_texts", embed)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished collaborative stage."""
    folder = tmp_path_factory.mktemp("collaborative")
    collaborative.main(collaborative_spec(folder))
    return folder / "out"


def spec(folder: Path, vectors: Path, *, name: str = "out", **config: Any) -> StageSpec:
    (folder / name).mkdir()
    return StageSpec(
        "generative_rec",
        "scid_tokenizer",
        str(folder / name),
        3,
        tables=write_tables(folder),
        artifacts={"collaborative": str(vectors)},
        config={**TOKENIZER, **config},
    )


def test_every_item_gets_a_leaf_of_its_own_and_every_read_user_codes(tmp_path: Path, vectors: Path) -> None:
    result = scid_tokenizer.main(spec(tmp_path, vectors))
    codes = read_codes(tmp_path / "out")
    assert sorted(codes) == ITEMS
    trie = Trie.build(list(codes.values()))
    assert [trie.item_of(code) for code in codes.values()] == list(range(60))
    users = read_user_codes(tmp_path / "out")
    assert len(users) == 90
    assert {len(code) for code in users.values()} == {3}
    assert all(0 <= code < 8 for row in users.values() for code in row)
    early = read_early_codes(tmp_path / "out")
    assert early.keys() <= users.keys() and len(early) > 45
    # Who walks a ring from one place has the same past, whatever their codes are in the end.
    assert {early[f"u{n:03d}"] == early[f"u{n + 60:03d}"] for n in range(30) if f"u{n:03d}" in early} == {True}
    books = load_file(tmp_path / "out" / "quantizer.safetensors")
    assert {name: tuple(book.shape) for name, book in books.items()} == {f"codebook.{n}": (8, 6) for n in range(3)}
    assert result.metrics["item.collision_rate"] <= result.metrics["item.collision_rate_before_sinkhorn"]
    for level in (1, 2, 3):
        assert {f"item.usage.level_{level}", f"item.perplexity.level_{level}", f"item.neighbours.level_{level}",
                f"user.usage.level_{level}", f"item.unexplained.level_{level}"} <= set(result.metrics)  # fmt: skip


def test_ids_without_text_are_coded_by_what_people_did_alone(tmp_path: Path, vectors: Path) -> None:
    bare = replace(
        spec(tmp_path, vectors, text={"semantics": "none"}), tables=write_tables(tmp_path, title=[None] * 60)
    )
    scid_tokenizer.main(bare)
    assert sorted(read_codes(tmp_path / "out")) == ITEMS


def test_the_same_seed_gives_the_same_codes(tmp_path: Path, vectors: Path) -> None:
    for name in ("a", "b"):
        scid_tokenizer.main(spec(tmp_path, vectors, name=name))
    assert read_codes(tmp_path / "a") == read_codes(tmp_path / "b")
    assert read_user_codes(tmp_path / "a") == read_user_codes(tmp_path / "b")


@pytest.mark.parametrize("count", [13, 31])
def test_a_killed_run_that_goes_on_ends_with_the_codes_of_a_straight_one(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    scid_tokenizer.main(spec(tmp_path, vectors, name="straight"))
    killed, original = spec(tmp_path, vectors, name="killed"), training.TokenizerTraining.step

    def step(self: training.TokenizerTraining, number: int, *, second: bool) -> dict[str, float]:
        if number == count - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, number, second=second)

    monkeypatch.setattr(training.TokenizerTraining, "step", step)
    with pytest.raises(Preempted):
        scid_tokenizer.main(killed)
    monkeypatch.setattr(training.TokenizerTraining, "step", original)
    assert scid_tokenizer.main(killed).resumed_from == count
    expected, found = (load_file(tmp_path / name / "tokenizer.safetensors") for name in ("straight", "killed"))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "killed")]
    assert logs[0] == logs[1]
    assert read_codes(tmp_path / "straight") == read_codes(tmp_path / "killed")


def test_a_failed_gate_names_every_figure_and_leaves_them_in_the_log(tmp_path: Path, vectors: Path) -> None:
    gate = {"item_collisions": -0.1, "colliding": -1, "level_1_usage": 1.1, "perplexity": 0.0}
    with pytest.raises(LeftOut, match=r"(?s)failed their gate.*item.collision_rate.*item.usage.*user.usage"):
        scid_tokenizer.main(spec(tmp_path, vectors, gate=gate))
    assert "item.collision_rate" in (tmp_path / "out" / "metrics.jsonl").read_text()


Change = Callable[[StageSpec, Path], StageSpec]


def with_items(**changes: Any) -> Change:
    return lambda stage, folder: replace(stage, tables=write_tables(folder, **changes))


def another_schema(stage: StageSpec, folder: Path) -> StageSpec:
    table = pq.read_table(folder / "samples.parquet").drop_columns(["split_time"])
    pq.write_table(table, folder / "samples.parquet")
    return stage


def other_users(stage: StageSpec, folder: Path) -> StageSpec:
    return replace(stage, tables=write_tables(folder, users=80))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_items(source=["elsewhere"] * 60), "samples are not in the catalogue|catalogue is empty"),
        (with_items(title=[None, *["bead"] * 59]), r"1 items have no text\n.*i00"),
        (with_items(item_id=[*ITEMS[:-1], ITEMS[0]]), r"1 items are in the catalogue twice\n.*i00"),
        (another_schema, r"(?s)no column 'split_time'.*another schema version"),
        (other_users, r"(?s)of other users or items.*90 users and 60 items.*80 and 60"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    monkeypatch.setattr(training.TokenizerTraining, "train", lambda *_: pytest.fail("training began"))
    stage = change(spec(tmp_path, vectors, sources=["shop"]), tmp_path)
    with pytest.raises(DataError, match=reason):
        scid_tokenizer.main(stage)


def test_an_embedding_that_is_not_finite_is_refused_with_its_item(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = np.ones((60, 4), dtype=np.float32)
    broken[7] = np.nan
    monkeypatch.setattr(inputs, "embed_texts", lambda *_, **__: broken)
    with pytest.raises(DataError, match=r"1 items have an embedding that is not finite\n.*i07"):
        scid_tokenizer.main(spec(tmp_path, vectors))


def day(number: int) -> date:
    return date(2024, 1, 1) + timedelta(days=number)


PROFILES = [("u", 0, None), ("u", 1, "old"), ("u", 2, "right"), ("u", 3, "knows the valid item"),
            ("v", 0, "early"), ("v", 1, "of day 0"), ("w", 4, "of a stranger")]  # fmt: skip


def with_profiles(stage: StageSpec, rows: list[tuple[str, int, str | None]]) -> StageSpec:
    """The same stage, its samples with profile texts; rows without one have none."""
    file = Path(stage.tables["next_item_training_set"].files[0])
    table, texts = pq.read_table(file), {(user, day(n)): text for user, n, text in rows}
    column = [
        texts.get(key) for key in zip(*table.select(["user_id", "sample_date"]).to_pydict().values(), strict=True)
    ]
    pq.write_table(table.append_column("user_profile__profile_text", pa.array(column, pa.string())), file)
    return stage


def test_a_users_profile_is_the_newest_that_tells_of_training_days_only(tmp_path: Path) -> None:
    """A sample's profile tells of the days before it, so that of the first held-out day still is of training days."""
    columns = {"user_id": [r[0] for r in PROFILES], "sample_date": [day(r[1]) for r in PROFILES]}
    table = pa.table({**columns, "user_profile__profile_text": [r[2] for r in PROFILES]})
    pq.write_table(table, tmp_path / "samples.parquet")
    parts = {"u": ["train", "train", "valid", "test"], "v": ["train", "train"]}
    samples = [NextItem(user, day(n), "i", (), part) for user, own in parts.items() for n, part in enumerate(own)]
    tables = {"next_item_training_set": TableRef((str(tmp_path / "samples.parquet"),))}
    stage = StageSpec("generative_rec", "scid_tokenizer", str(tmp_path), 0, tables=tables)
    found = inputs.profiles(stage, held_out_from(samples))
    assert (found["u"], found["v"]) == ("right", "of day 0")


def test_users_are_described_by_their_profile_where_asked_and_those_without_one_are_counted(
    tmp_path: Path, vectors: Path
) -> None:
    stage = spec(tmp_path, vectors, text={"users": "profile"})
    result = scid_tokenizer.main(with_profiles(stage, [("u000", 2, "likes ring 3"), ("u001", 7, "knows the test")]))
    assert result.metrics["users_without_profile"] == 89


def beads(texts: list[str], *_: object, **__: object) -> NDArray[np.float32]:
    """What share of the beads that a text names is each one: [texts, 60]. A vector says what its text gives away."""
    counts = np.array([np.bincount([int(n) for n in re.findall(r"bead (\d+)", text)], minlength=60) for text in texts])
    shares: NDArray[np.float32] = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def built(stage: StageSpec, **text: Any) -> tuple[inputs.Inputs, TokenizerData, Interactions]:
    """The inputs of a stage, what learns from them, and what may be known of users who are asked about."""
    samples = read_samples(stage, "leave_one_out")
    known = Interactions.of_training(samples, ITEMS, 2)
    told = Interactions.of_training(before_held_out(samples), ITEMS, 0)
    found = inputs.build_inputs(
        stage, read_catalogue(stage, (), TABLE), samples, known, told, inputs.TextConfig(**text)
    )
    pairs = held_out_pairs(samples, "valid", known)
    return found, TokenizerData.of(found, known, pairs, torch.device("cpu")), told


def test_no_input_of_the_text_gives_away_the_item_that_it_is_asked_for(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile names the items of the days before it. Half of the users have one on each day, the others have none."""
    monkeypatch.setattr(inputs, "embed_texts", beads)
    told = [(f"u{n:03d}", step, " ".join(f"bead {int(item[1:])}" for item in walk(n)[:step]))
            for n in range(0, 90, 2) for step in range(1, 8)]  # fmt: skip
    stage = with_profiles(spec(tmp_path, vectors), told)
    found, data, _ = built(stage, users="profile")
    events = torch.arange(len(data.known.items))
    asked, _ = data.pairs(events, leave_out=True)
    assert asked[events, data.known.items].abs().max() < 1e-6
    assert data.users[data.known.users, data.known.items].min() > 0.1  # the profile in the end names them all
    halves = data.known.first_halves()
    for user, profile in ((0, torch.from_numpy(beads(["bead 0 bead 1 bead 2"]))), (1, None)):
        early = found.early[0][halves.user_ids.index(f"u{user:03d}")]
        expected = early if profile is None else profile[0]
        late = events[(data.known.users == user)][-1]
        assert torch.allclose(early, expected)
        assert torch.equal(asked[late][:60], early) == (profile is not None)
    assert found.users_without_profile == 45


def test_what_a_user_is_asked_with_knows_nothing_of_the_day_of_which_something_is_held_out(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last three items of everyone are of one day: one is training, one validation, one test."""
    monkeypatch.setattr(inputs, "embed_texts", beads)
    stage = spec(tmp_path, vectors)
    file = Path(stage.tables["next_item_training_set"].files[0])
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        row["sample_date"] = min(row["sample_date"], day(5))
        row["history_item_ids"] = row["history_item_ids"][:5]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    found, data, told = built(stage)
    assert told.starts.diff().tolist() == [5] * 90 and data.known.starts.diff().tolist() == [6] * 90
    assert torch.allclose(found.asked[0][0], torch.from_numpy(beads(["bead 0 bead 1 bead 2 bead 3 bead 4"]))[0])
    assert torch.equal(found.asked[1], pooled_users(found.items[1], told))


def test_where_every_item_has_a_day_of_its_own_all_of_the_training_part_may_be_known(
    tmp_path: Path, vectors: Path
) -> None:
    found, data, told = built(spec(tmp_path, vectors))
    assert told.user_ids == data.known.user_ids and torch.equal(told.items, data.known.items)
    assert all(torch.allclose(a, b) for a, b in zip(found.asked, found.users, strict=True))
    assert torch.equal(data.learnt[data.rows], data.users[data.known.users])


def test_profiles_that_the_samples_do_not_have_are_an_error(tmp_path: Path, vectors: Path) -> None:
    with pytest.raises(DataError, match="no column 'user_profile__profile_text'"):
        scid_tokenizer.main(spec(tmp_path, vectors, text={"users": "profile"}))


def test_items_with_the_very_text_of_more_than_a_level_can_hold_are_no_fault_of_the_codes() -> None:
    # Of 8 items 5 have one text, for 3 codes: 2 of 8 can have none of their own.
    assert scid_tokenizer.told_alike([*"aaaaabcd"], 3) == 0.25
    sides = {f"{side}.{name}": 1.0 for side in ("item", "user") for name in ("usage.level_1", "balance.level_1")}
    sides["items"] = 1000.0
    gate = scid_tokenizer.Gate(item_collisions=0.01)
    scid_tokenizer.hold_gate({**sides, "item.collision_rate": 0.255, "item.told_alike": 0.25}, gate)
    with pytest.raises(DataError, match=r"item.collision_rate 0.0200 > 0.01"):
        scid_tokenizer.hold_gate({**sides, "item.collision_rate": 0.27, "item.told_alike": 0.25}, gate)
