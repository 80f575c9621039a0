"""The SFT stage from tables to a checkpoint that decodes items, on a two-layer model and a dozen items."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tests.unit.training.alignment_kit import Killed, killed_in_step, weights
from tests.unit.training.sample_kit import write_rows
from training.core.backbone import BackboneConfig, build_backbone, load_backbone, save_backbone
from training.core.decoding import beam_search
from training.core.errors import DataError, Preempted
from training.core.loop import Loop
from training.core.stage import StageSpec, TableRef, run_stage
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes, codebooks, read_codes, start_from_text
from training.generative_rec.stages import sft
from training.generative_rec.validation import Validation, draw_examples
from training.next_item.samples import of_subset, read_samples

ITEMS = [str(number) for number in range(12)]
CODES = [[number // 4, number % 4] if number < 11 else [0, 0, 1] for number in range(12)]
CODES[0] = [0, 0, 0]
BACKBONE: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_size": 16,
    "intermediate_size": 48,
}
LOOP = {"epochs": 20, "rows": 4, "row_tokens": 32, "learning_rate": 0.02, "patience": 40}


def write_codes(folder: Path, codes: list[list[int]], items: list[str] = ITEMS) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.table({"item_id": items, "codes": pa.array(codes, pa.list_(pa.int32()))})
    pq.write_table(table, folder / "codes.parquet")
    save_file({"codebook.0": torch.eye(3, 4)}, folder / "quantizer.safetensors")
    return folder


def write_samples(path: Path) -> Path:
    """Each user goes through the catalogue in order, so the next item is always the one after the last."""
    rows = []
    for user in range(24):
        items = [ITEMS[(user + step) % 12] for step in range(4)]
        for step in range(1, 4):
            day = date(2024, 1, 1) + timedelta(days=step)
            time = datetime(day.year, day.month, day.day, tzinfo=UTC)
            part = "train" if step < 3 else "valid" if user < 12 else "test"
            rows.append((f"u{user}", day, time, items[step], items[:step], part))
    return write_rows(path, rows)


@pytest.fixture
def spec(tmp_path: Path) -> StageSpec:
    pq.write_table(pa.table({"title": [f"item {number}" for number in ITEMS]}), tmp_path / "items.parquet")
    tables = {
        "next_item_training_set": write_samples(tmp_path / "samples.parquet"),
        "items": tmp_path / "items.parquet",
    }
    return StageSpec(
        system="generative_rec",
        stage="sft",
        out=str(tmp_path / "out"),
        seed=3,
        tables={name: TableRef((str(path),)) for name, path in tables.items()},
        artifacts={"semantic_ids": str(write_codes(tmp_path / "ids", CODES))},
        config={
            "text_tokens": 280,
            "augmentation": {"variants": 12, "reverse": 0.0, "drop": 0.0},
            "backbone": BACKBONE,
            "loop": LOOP,
        },
    )


def test_the_trained_model_finds_the_next_item_through_its_saved_vocabulary(spec: StageSpec) -> None:
    assert run_stage(spec, sft.main)
    result = json.loads((spec.out_dir / "result.json").read_text())
    model, vocabulary = load_backbone(spec.out_dir / "model")
    items = ItemCodes.load(spec.artifact("semantic_ids"), vocabulary)
    found = beam_search(model.eval(), items.trie, [items.prompt([ITEMS[n]], 20) for n in range(11)], beams=3)
    hits = sum(n + 1 in row for n, row in enumerate(found.items.tolist()))
    assert hits >= 9
    assert result["metrics"]["steps"] > 0 and result["resumed_from"] is None
    assert not run_stage(spec, sft.main)


@pytest.mark.parametrize(("reverse", "share"), [("validation", 0.0), (0.25, 0.25)])
def test_whether_copies_run_backwards_is_found_on_validation_or_as_configured(
    spec: StageSpec, reverse: float | str, share: float
) -> None:
    """Each item is followed by the next one, so the order matters here."""
    config = {**spec.config, "augmentation": {"variants": 1, "reverse": reverse}}
    assert sft.main(dataclasses.replace(spec, config=config)).metrics["reverse"] == share


def test_the_epoch_that_ranks_best_is_kept_whatever_its_loss(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told gains: the second epoch ranks best, though the loss of every later one is lower."""
    told, rank = iter([0.1, 0.4, 0.2, 0.3]), Validation.ndcg
    monkeypatch.setattr(Validation, "ndcg", lambda self: next(told))
    result = sft.main(dataclasses.replace(spec, config={**spec.config, "loop": {**LOOP, "epochs": 4, "patience": 9}}))
    lines = [json.loads(line) for line in (spec.out_dir / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if "eval_value" in line]
    assert [line["eval_value"] for line in ends] == [-0.1, -0.4, -0.2, -0.3]
    assert ends[-1]["valid_loss"] < ends[1]["valid_loss"]
    assert (result.metrics["valid_ndcg@10"], result.metrics["best_step"]) == (0.4, ends[1]["step"])
    monkeypatch.setattr(Validation, "ndcg", rank)
    again = sft.main(
        dataclasses.replace(spec, out=f"{spec.out}-2", config={**spec.config, "loop": {**LOOP, "epochs": 1}})
    )
    model, vocabulary = load_backbone(spec.out_dir.with_name(f"{spec.out_dir.name}-2") / "model")
    items = ItemCodes.load(spec.artifact("semantic_ids"), vocabulary)
    asked = draw_examples(of_subset(read_samples(spec, "time"), "valid"), items, 20, 2000, spec.seed)
    assert Validation(model, items, asked).ndcg() == again.metrics["valid_ndcg@10"]


def test_a_shop_with_many_validation_samples_is_validated_on_some(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, train = list[int](), Loop.train

    def counted(self: Any, samples: Any, valid: Any, *given: Any, **named: Any) -> Any:
        told.append(len(valid))
        return train(self, samples, valid, *given, **named)

    monkeypatch.setattr(Loop, "train", counted)
    assert len(of_subset(read_samples(spec, "time"), "valid")) > 3
    sft.main(dataclasses.replace(spec, config={**spec.config, "eval_examples": 3, "loop": {**LOOP, "epochs": 1}}))
    assert told == [3]


def test_of_epochs_that_rank_alike_the_one_with_the_lowest_loss_is_kept(
    spec: StageSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validation, "ndcg", lambda self: 1.0)
    result = sft.main(dataclasses.replace(spec, config={**spec.config, "loop": {**LOOP, "epochs": 4}}))
    lines = [json.loads(line) for line in (spec.out_dir / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if "eval_value" in line]
    assert result.metrics["best_step"] == min(ends, key=lambda line: line["valid_loss"])["step"] > ends[0]["step"]


def test_an_item_without_a_semantic_id_is_named_and_not_learnt(
    spec: StageSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_codes(tmp_path / "ids", CODES[:9], ITEMS[:9])
    run_stage(dataclasses.replace(spec, config={**spec.config, "loop": {**LOOP, "epochs": 1}}), sft.main)
    assert "3 items of the samples are not in the catalogue: items 10, 11, 9" in capsys.readouterr().err


def test_items_without_a_title_are_counted_and_named(
    spec: StageSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"item_id": item, "source": "shop", "title": None if item in ("7", "3") else f"item {item}", "brand": "acme"}
        for item in ITEMS
    ]
    kinds = dict.fromkeys(("item_id", "source", "title", "brand", "category", "description", "features"), pa.string())
    pq.write_table(pa.Table.from_pylist(lines, schema=pa.schema(list(kinds.items()))), tmp_path / "items.parquet")
    once = {**spec.config, "loop": {**LOOP, "epochs": 1}}
    told = dataclasses.replace(spec, config={**once, "tasks": {"sequential": 1.0, "item_to_text": 1.0}})
    metrics = sft.main(told).metrics
    assert (metrics["items_without_title"], metrics["rows.item_to_text"]) == (2.0, 10.0)
    assert "warning: 2 of 12 items have no title and are in no text task: 3, 7\n" in capsys.readouterr().err
    ids_alone = dataclasses.replace(spec, out=str(tmp_path / "ids_alone"), config=once)
    assert "items_without_title" not in sft.main(ids_alone).metrics


def test_leave_one_out_trains_a_second_model_beside_the_first(spec: StageSpec) -> None:
    both = {**spec.config, "splits": ["time", "leave_one_out"], "loop": {**LOOP, "epochs": 1}}
    spec = dataclasses.replace(spec, config=both)
    result = sft.main(spec)
    first, second = (load_backbone(spec.out_dir / name)[0] for name in ("model", "model_leave_one_out"))
    # the time split has two training samples of each user, leave-one-out one: sequences of three and of two items
    assert result.metrics["steps"] > result.metrics["leave_one_out.steps"] > 0
    assert not torch.equal(first.get_input_embeddings().weight, second.get_input_embeddings().weight)


@pytest.mark.parametrize("softly", [True, False])
def test_a_run_that_was_killed_and_started_again_ends_with_the_bits_of_a_straight_one(
    spec: StageSpec, tmp_path: Path, softly: bool
) -> None:
    config = {**spec.config, "loop": {**LOOP, "epochs": 2, "checkpoint_steps": 2}}
    straight = dataclasses.replace(spec, config=config)
    killed = dataclasses.replace(straight, out=str(tmp_path / "killed"))
    run_stage(straight, sft.main)
    with killed_in_step(4, softly=softly), pytest.raises(Preempted if softly else Killed):
        run_stage(killed, sft.main)
    run_stage(killed, sft.main)
    found, expected = (json.loads((one.out_dir / "result.json").read_text()) for one in (killed, straight))
    assert found["resumed_from"] > 0 and expected["resumed_from"] is None
    assert weights(killed.out) == weights(straight.out)


def test_codes_start_as_far_apart_as_their_vectors(items: ItemCodes, tmp_path: Path) -> None:
    books = {"codebook.0": torch.tensor([[3.0, 0.0], [3.0, 1.0], [-3.0, 0.0]]), "codebook.1": torch.ones(4, 2)}
    save_file(books, tmp_path / "ids" / "quantizer.safetensors")
    model = build_backbone(BackboneConfig(**BACKBONE), items.vocabulary, seed=3)
    before = model.get_input_embeddings().weight.detach().clone()
    start_from_text(model, items.vocabulary, tmp_path / "ids", 2.0, seed=3)
    rows, moved = items.vocabulary.code_table("item"), model.get_input_embeddings().weight.detach() - before
    lengths = torch.cdist(moved[rows[0]], moved[rows[0]]) / torch.cdist(books["codebook.0"], books["codebook.0"])
    scale = 2.0 * before[rows[0]].norm(dim=1).mean() / books["codebook.0"].norm(dim=1).mean()
    assert lengths[~torch.eye(3, dtype=torch.bool)].tolist() == pytest.approx([float(scale)] * 6, rel=1e-4)
    assert torch.equal(moved[rows[2]], torch.zeros_like(moved[rows[2]]))  # the further code has no vector


def test_codes_start_on_the_device_of_the_model(items: ItemCodes, tmp_path: Path) -> None:
    """`meta` stands for a GPU: a product of tensors of two devices is refused there as well."""
    books = {"codebook.0": torch.randn(3, 2), "codebook.1": torch.ones(4, 2)}
    save_file(books, tmp_path / "ids" / "quantizer.safetensors")
    model = build_backbone(BackboneConfig(**BACKBONE), items.vocabulary, seed=3).to("meta")
    start_from_text(model, items.vocabulary, tmp_path / "ids", 2.0, seed=3)
    assert model.get_input_embeddings().weight.is_meta


def test_in_a_pretrained_backbone_codes_start_from_text_at_the_length_of_its_own_words(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "ids", CODES)
    words = Vocabulary.create(train_text_tokenizer(["pen"], 270), {})
    sizes = BackboneConfig(**BACKBONE)
    save_backbone(build_backbone(sizes, words, seed=1), words, tmp_path / "pretrained")
    vocabulary = Vocabulary.create(words.tokenizer, codebooks(codes))
    model = build_backbone(dataclasses.replace(sizes, path=str(tmp_path / "pretrained")), vocabulary, seed=1)
    before = model.get_input_embeddings().weight.detach().clone()
    start_from_text(model, vocabulary, codes, 1.0, seed=3)
    moved = (model.get_input_embeddings().weight - before)[vocabulary.code_table("item")[0]].norm(dim=1)
    typical = float(before[: len(words)].norm(dim=1).median())
    assert moved.tolist() == pytest.approx([typical] * 3, rel=0.1)


def vocabulary_for(codes: Path) -> Vocabulary:
    return Vocabulary.create(train_text_tokenizer(["pen"], 270), codebooks(codes))


@pytest.fixture
def items(tmp_path: Path) -> ItemCodes:
    folder = write_codes(tmp_path / "ids", CODES)
    return ItemCodes.load(folder, vocabulary_for(folder))


def names(items: ItemCodes, tokens: tuple[int, ...]) -> str:
    return " ".join(items.vocabulary.tokenizer.convert_ids_to_tokens(list(tokens)))


def test_a_hand_worked_sample_is_the_begin_token_and_the_last_items_then_the_target(items: ItemCodes) -> None:
    sample = items.next_item(["1", "4", "11"], "7", last=2)
    assert names(items, sample.prompt) == "<bos> <a_1> <b_0> <a_0> <b_0> <c_1>"
    assert names(items, sample.response) == "<a_1> <b_3>"


def test_the_vocabulary_of_other_semantic_ids_is_refused(tmp_path: Path) -> None:
    one = write_codes(tmp_path / "one", CODES)
    other = write_codes(tmp_path / "other", [[n, 0] for n in range(12)])
    with pytest.raises(DataError, match="made for other semantic ids"):
        ItemCodes.load(other, vocabulary_for(one))


def test_users_with_codes_stand_before_their_history_and_others_do_not(tmp_path: Path) -> None:
    folder = write_codes(tmp_path / "ids", CODES)
    users = pa.table({"user_id": ["ann", "bob"], "codes": pa.array([[0, 1], [0, 1]], pa.list_(pa.int32()))})
    pq.write_table(users, folder / "user_codes.parquet")
    items = ItemCodes.load(folder, vocabulary_for(folder))
    assert names(items, items.prompt(["1"], 5, "ann")) == "<bos> <ua_0> <ub_1> <a_0> <b_1>"
    assert items.prompt(["1"], 5, "bob") == items.prompt(["1"], 5, "ann")
    assert names(items, items.prompt(["1"], 5, "new")) == "<bos> <a_0> <b_1>"


def test_two_rows_of_codes_for_one_item_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two rows of codes"):
        read_codes(write_codes(tmp_path / "ids", [[0], [1]], ["7", "7"]))
