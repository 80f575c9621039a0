"""The dry run of a preset: configs are read, models built without weights, and what does not fit is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from common.pipelines import Preset, load_pipeline
from tests.unit.training.conftest import TINY
from training import jobs
from training.__main__ import main
from training.check import check
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone, outline
from training.core.embedded import INSTALL, SMOLLM2
from training.core.errors import DataError
from training.core.footprint import Decoding, Load, faults, footprint
from training.core.prompts import FENCES, Writer
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.sizes import loads
from training.generative_rec.stages import scid_tokenizer, sft
from training.generative_rec.tasks import SOURCES, TEXT_SLOTS, task_templates

# The sizes of Qwen3-0.6B, as its config.json has them.
LARGE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
SIXTY = {"start": "sft", "codes": "scid_tokenizer", "ranked": {"top": 60}, "loop": {"row_tokens": 256}}
LOAD = Load(TINY, tokens=300, rows=4, row_tokens=64, longest=60, positions=60)
DECLARED = yaml.safe_load(Path(jobs.__file__).with_name("generative_rec").joinpath("pipeline.yaml").read_text())


def write_backbone(folder: Path, **changes: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**LARGE, **changes}))
    return str(folder)


def declared(root: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder of systems in which `change` was done to the stages, by name."""
    pipeline = yaml.safe_load(yaml.safe_dump(DECLARED))
    change({stage["name"]: stage for stage in pipeline["stages"]})
    (root / "generative_rec").mkdir()
    (root / "generative_rec" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return root


@pytest.mark.parametrize("system", ["generative_rec", "toy"])
def test_a_stage_without_a_module_is_refused_with_its_place(tmp_path: Path, system: str) -> None:
    text = yaml.safe_dump(DECLARED).replace("name: sft\n", "name: sft\n  module: nowhere\n")
    (tmp_path / system).mkdir()
    (tmp_path / system / "pipeline.yaml").write_text(text)
    with pytest.raises(DataError, match="there is no stage") as failure:
        check(system, "demo", None, 80.0, None, tmp_path)
    assert failure.value.where.startswith(f"training/{system}/stages/")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--gpus", "-1", "'-1' is not a number of GPUs"),
        ("--gpus", "0", "write 1 or more"),
        ("--gpus", "two", "write 1 or more"),
        ("--gpu-gib", "-5", "is not the memory of a GPU"),
        ("--gpu-gib", "nan", "such as 24"),
        ("--gpu-gib", "much", "such as 24"),
    ],
)
def test_gpus_that_cannot_be_are_refused_in_a_sentence(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check", "--system", "generative_rec", "--preset", "demo", f"{option}={value}"])
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_the_help_tells_of_the_commands_beside_stages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for command in ("check --system NAME", "bench --job NAME", "ablation --runs DIR"):
        assert any(line.startswith(f"  {command}") for line in lines)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_outline_has_the_weights_of_the_model(vocabulary: Vocabulary, lora: LoraSettings | None) -> None:
    config = replace(TINY, lora=lora)
    real, shape = build_backbone(config, vocabulary, seed=1), outline(config, len(vocabulary))
    assert shape.device.type == "meta"
    sizes = [
        [(name, weight.shape, weight.requires_grad) for name, weight in one.named_parameters()] for one in (real, shape)
    ]
    assert sizes[0] == sizes[1]


def test_a_backbone_by_path_is_outlined_from_its_config_and_gets_rows_for_the_codes(tmp_path: Path) -> None:
    path = write_backbone(tmp_path / "backbone")
    model = outline(BackboneConfig(path=path), tokens=1792)
    assert model.get_input_embeddings().weight.shape == (151936 + 1792, 1024)
    assert sum(weight.numel() for weight in model.parameters()) == 596_049_920 + 1792 * 1024


def test_the_footprint_is_the_sum_worked_by_hand() -> None:
    weights = sum(weight.numel() for weight in outline(TINY, 300).parameters())
    # Layers of width 16; 256 tokens of a vocabulary of 300.
    activations, logits = 34 * 2 * 256 * 16, 10 * 256 * 300
    alone, shared = footprint(LOAD, 1), footprint(LOAD, 4)
    assert alone.training * 2**30 == pytest.approx(16 * weights + 2 * weights + activations + logits)
    assert shared.training * 2**30 == pytest.approx(4 * weights + 8 * weights + activations + logits)
    assert (alone.weights, alone.trainable, alone.whole * 2**30) == (weights, weights, 4 * weights)
    assert shared.whole * 2**30 == 4 * weights + 4 * weights
    deep = replace(LOAD, backbone=replace(TINY, layers=12))
    layer = (sum(weight.numel() for weight in outline(deep.backbone, 300).parameters()) - weights) // 10
    state, seen = 4 * (weights + 10 * layer), 8 * weights  # of the ten further layers none is whole
    assert footprint(deep, 4).training * 2**30 == pytest.approx(state + seen + 6 * activations + logits)
    beside = footprint(replace(LOAD, reference=True), 4)
    assert (beside.training - shared.training) * 2**30 == pytest.approx(weights)
    again = footprint(replace(LOAD, backbone=replace(TINY, gradient_checkpointing=True)), 1)
    assert (again.training - alone.training) * 2**30 == pytest.approx((2 * 2 + 34) * 256 * 16 - activations)


def test_what_decoding_takes_is_worked_by_hand() -> None:
    """Two prompts of 10 tokens with 3 beams of 4: 44 tokens of keys and values for one head of 8, in two layers."""
    weights = sum(weight.numel() for weight in outline(TINY, 300).parameters())
    load = replace(LOAD, decoding=Decoding(requests=2, prompt=10, answers=3, tokens=4))
    cache, layer, logits = 2 * 2 * 44 * 2 * 8, 34 * 20 * 16, 10 * 6 * 300
    assert footprint(load, 1).decoding * 2**30 == pytest.approx(16 * weights + 2 * weights + cache + layer + logits)
    assert footprint(load, 4).decoding * 2**30 == pytest.approx(4 * weights + 2 * weights + cache + layer + logits)
    assert footprint(LOAD, 1).decoding == 0.0
    large = replace(load, tokens=150_000, decoding=Decoding(64, 10, 200, 4))
    assert footprint(large, 1).decoding < footprint(replace(large, decoding=load.decoding), 1).decoding + 2.0


def test_weights_that_do_not_learn_stand_there_in_bf16_alone() -> None:
    adapted = replace(LOAD, backbone=replace(TINY, lora=LoraSettings(rank=2)))
    found = footprint(adapted, 1)
    activations, logits = 34 * 2 * 256 * 16, 10 * 256 * 300
    frozen = found.weights - found.trainable
    assert frozen > 0
    assert found.training * 2**30 == pytest.approx(2 * frozen + 18 * found.trainable + activations + logits)


def test_a_stage_that_decodes_too_much_at_once_is_refused(tmp_path: Path) -> None:
    root = declared(tmp_path, lambda stages: stages["sp_easy"]["config"]["demo"]["choice"].update(beams=10**6))
    with pytest.raises(DataError, match=r"sp_easy: .* GiB to decode: ask for fewer beams"):
        check("generative_rec", "demo", None, 80.0, None, root)


@pytest.mark.parametrize(
    ("load", "gib", "words"),
    [
        (replace(LOAD, longest=65), 80, ["a sample of 65 tokens in rows of 64"]),
        (replace(LOAD, positions=65), 80, ["a sequence of 65 tokens, the backbone takes 64"]),
        (LOAD, 1e-5, ["GiB while the model is whole", "GiB to train"]),
        (LOAD, 80, []),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_change(load: Load, gib: float, words: list[str]) -> None:
    found = faults(load, footprint(load, 1), gib)
    assert len(found) == len(words) and all(word in line for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize("preset", ["demo", "bench"])
def test_the_presets_without_a_backbone_of_others_fit(preset: Preset) -> None:
    stages = [stage.name for stage in load_pipeline("generative_rec", preset).stages]
    report = check("generative_rec", preset, None, 80.0, None)
    assert [line.split()[0] for line in report.splitlines()] == stages


@pytest.mark.parametrize("there", [True, False])
def test_the_embedded_model_is_checked_without_its_package_and_how_to_get_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path))
    monkeypatch.setattr("training.core.embedded._installed", lambda: tmp_path if there else None)
    report = check("generative_rec", "production", 1, 80.0, SMOLLM2)
    assert "135 M weights" in report or "136 M weights" in report
    assert (INSTALL in report) != there


@pytest.mark.parametrize("gpus", [None, 8])
def test_production_fits_its_gpus_and_others_with_a_backbone_of_600_million_weights(
    tmp_path: Path, gpus: int | None
) -> None:
    report = check("generative_rec", "production", gpus, 80.0, write_backbone(tmp_path / "backbone"))
    assert report.count(f"on each of {gpus or 4} GPUs") == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stages: stages["sft"]["config"]["demo"].update(taks={}), "unknown config key 'taks'"),
        (lambda stages: stages["sft"]["config"]["demo"]["loop"].update(rows=2**20), "sft: .* GiB to train"),
        (lambda stages: stages["sft"]["config"]["demo"].update(history=40), "sft: a sample of 169 tokens in rows of"),
        (lambda stages: stages["sp_easy"]["config"]["demo"]["choice"].update(most=150), "sp_easy: a sample of 688"),
        (lambda stages: stages["sft_listwise"]["config"].update(demo=SIXTY), "sft_listwise: a sample of 328 tokens"),
        (lambda stages: stages["sp_easy"]["config"]["demo"].update(start="sp_hard"), "sp_easy names sp_hard"),
        (lambda stages: stages["rf_easy"]["reads"].update(artifacts=["sp_hard"]), "rf_easy names scid_tokenizer"),
    ],
)
def test_a_preset_that_does_not_hold_together_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(DataError, match=words) as refused:
        check("generative_rec", "demo", None, 80.0, None, declared(tmp_path, change))
    assert refused.value.do


def test_no_sample_of_a_task_is_longer_than_the_bound_by_which_rows_are_checked() -> None:
    config = sft.Config(codes="ids", tasks=dict.fromkeys(SOURCES, 1.0), history=3, slot_tokens=5)
    bound = loads({"ids": scid_tokenizer.Config(), "sft": config})["sft"].longest
    vocabulary = Vocabulary.create(
        train_text_tokenizer(["pen"], 260), {"item": (2, 2, 2, 2), "user": (2, 2, 2)}, FENCES
    )
    item, user = (tuple(level[1] for level in vocabulary.code_table(kind)) for kind in ("item", "user"))
    items = ItemCodes(("i",), (item,), vocabulary, {"u": user})
    slots = {"user": user, "history": item * 3, "item": item, **dict.fromkeys(TEXT_SLOTS, "x" * 99)}
    samples = [Writer(vocabulary, 5).sample(template, slots) for task in SOURCES for template in task_templates()[task]]
    whole = items.next_item(["i"] * 3, "i", 3, "u")
    assert max(map(len, [*samples, whole])) <= bound <= 2 * max(map(len, samples))


def test_the_command_says_what_is_wrong_and_exits_with_65(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--system", "generative_rec", "--preset", "demo"]) == 0
    assert "sp_hard" in capsys.readouterr().out
    assert main(["check", "--system", "generative_rec", "--preset", "production"]) == 65
    assert "there is no backbone" in capsys.readouterr().err
    large = write_backbone(tmp_path / "backbone")
    given = ["check", "--system", "generative_rec", "--preset", "production", "--backbone", large, "--gpu-gib", "2"]
    assert main(given) == 65
    assert "does not fit" in capsys.readouterr().err
    assert main(["check", "--system", "generative_rec", "--preset", "none"]) == 65
    assert "no stage under the preset 'none'" in capsys.readouterr().err


def test_a_real_checkpoint_folder_is_a_backbone_to_check_with(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = build_backbone(replace(TINY, max_positions=512), vocabulary, seed=1)
    model.save_pretrained(tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved") is not None
    assert "sft" in check("generative_rec", "production", None, 80.0, str(tmp_path / "saved"))
