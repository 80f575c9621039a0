"""Every stage of the presets that need GPUs, run with the preset's own config: nothing is changed but sizes and places.

Small are steps, rows, widths, beams, questions, and what gates ask of models that have learnt next to nothing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from common.models import ModelVersion
from common.pipelines import Preset, load_pipeline
from tests.recommender_kit import write_histories
from tests.unit.training.generative_rec.test_judge_view import statistics
from tests.unit.training.judge_kit import packaged_judge
from tests.unit.training.ranker_kit import with_ranker
from tests.unit.training.scid_kit import ITEMS, embed, walk, write_tables
from training import jobs
from training.core.backbone import load_backbone
from training.core.stage import StageSpec, TableRef, run_stage
from training.generative_rec.scid import inputs
from training.generative_rec.stages import recommend, semantic_ids
from training.jobs import Job, stage_specs

from . import launched

ROOT = Path(__file__).parents[3]
LOOP = {"epochs": 1, "rows": 4, "accumulate": 2, "log_steps": 1}
PREFERENCE = {
    "examples": 30, "least": 5, "choice": {"beams": 20, "least": 2}, "loop": LOOP,
    "gate": {"max_loss": 9.0, "valid": 0.0, "samples": 10},
}  # fmt: skip
POLICY = {
    "examples": 30, "beams": 16, "gate": PREFERENCE["gate"],
    "policy": {"rounds": 2, "prompts": 16, "minibatch": 8, "rows": 2},
}  # fmt: skip
WIDTHS = {"hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 8, "intermediate_size": 24}
SIZES: dict[str, dict[str, Any]] = {
    "semantic_ids": {"codes": 8, "width": 6},
    "collaborative": {"width": 8, "steps": 6, "check_steps": 3, "warmup_steps": 2},
    "scid_tokenizer": {
        "sc": {"hidden": [16]}, "quantizer": {"codes": 4, "width": 6, "hidden": [12]},
        "training": {"steps": 12, "check_steps": 3, "batch_size": 64, "negatives": 16},
        "gate": {"item_collisions": 1.0, "level_1_usage": 0.0, "perplexity": 0.0},
    },
    "sft": {"loop": LOOP},
    "sft_listwise": {"examples": 30, "loop": LOOP, "gate": PREFERENCE["gate"]},
    **dict.fromkeys(("grpo", "grpo_ranked", "a2po", "a2po_100", "business", "reward_sum", "gdpo"), POLICY),
    "evaluate": {"samples": 12, "resamples": 20},
    **dict.fromkeys(
        ("sp", "sp_easy", "sp_medium", "sp_hard", "rf_easy", "rf_hard", "rank_easy", "rank_hard"), PREFERENCE
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cheap_encoder() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for module in (semantic_ids, inputs):
            patch.setattr(module, "embed_texts", embed)
        yield


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's tables with all that a preset reads: a split, what people said of items, and their profiles."""
    folder = tmp_path_factory.mktemp("samples")
    write_tables(folder, users=60)
    table = pq.read_table(folder / "samples.parquet").drop_columns("split_time")
    steps = [len(history) for history in table["history_item_ids"].to_pylist()]
    words = [("liked", "neutral", "disliked", "disliked")[step % 4] for step in steps]
    profiles = [f"reads {user}" for user in table["user_id"].to_pylist()]
    further = {
        "split_time": [{6: "valid", 7: "test"}.get(step, "train") for step in steps],
        "feedback": words,
        "user_profile__profile_text": profiles,
    }
    for name, values in further.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    pq.write_table(table, folder / "next_item_training_set.parquet")
    statistics(folder / "item_stats.parquet", [(item, 2 + n % 3, 4.0, 1 + n) for n, item in enumerate(ITEMS)])
    return folder


@pytest.fixture(scope="module")
def given(samples: Path) -> dict[str, Path]:
    """A ranker and a judge of the shop."""
    tables = {"next_item_training_set": TableRef((str(samples / "next_item_training_set.parquet"),))}
    shop = StageSpec("generative_rec", "sft", str(samples), 3, tables)
    ranker = with_ranker(shop, samples / "ranker", ITEMS).models["ranker"][0]
    return {"ranker": Path(ranker.folder), "semantic_judge": Path(packaged_judge(samples / "judge", ITEMS).folder)}


def sized(preset: Preset, **more: Mapping[str, Any]) -> Job:
    """The preset with the sizes of this file, of the stages that it has."""
    names = {stage.name for stage in load_pipeline("generative_rec", preset).stages}
    sizes = {name: jobs.merged(SIZES.get(name, {}), more.get(name, {})) for name in names}
    return Job("generative_rec", preset, {name: size for name, size in sizes.items() if size})


def check_chain(specs: list[StageSpec]) -> dict[str, dict[str, float]]:
    """What every stage of a chain must have left; its metrics."""
    found = {spec.stage: json.loads((spec.out_dir / "result.json").read_text())["metrics"] for spec in specs}
    for name, metrics in found.items():
        assert all(math.isfinite(value) for value in metrics.values()), name
    stages = {name: metrics for name, metrics in found.items() if "accepted" in metrics}
    assert {name for name, metrics in stages.items() if not metrics["accepted"]} == set()
    assert all(metrics.get("steps", metrics.get("rounds")) > 0 for metrics in stages.values())
    models = specs[-1].config["models"]
    ranked = pq.read_table(specs[-1].out_dir / "tables/eval_values/part-0.parquet")
    signals = {"popularity", "personal", "forward", "backward", "both", "text", "sasrec"}
    assert {*models, *signals, "ranker", "fused"} == set(ranked["model"].to_pylist())
    return found


def check_nightly(specs: list[StageSpec], preset: Preset, folder: Path) -> None:
    """The packaged model gives users their lists, under the preset of the stage that does so each night."""
    stage = load_pipeline("generative_rec", preset).job("nightly_recommend").stage
    file = write_histories(folder / f"{preset}.parquet", {"u001": walk(1), "new": [ITEMS[3]]})
    tables = {recommend.HISTORIES: TableRef((str(file),)), "items": specs[-1].tables["items"]}
    packed = ModelVersion("1", "champion", str(specs[-1].out_dir / "model"))
    spec = StageSpec(
        "generative_rec", stage.name, str(folder / f"nightly_{preset}"), 3, tables,
        config=stage.config[preset], models={"generative_rec": (packed,)},
    )  # fmt: skip
    run_stage(spec, recommend.main)
    rows = pq.read_table(spec.out_dir / "tables/recommendations/part-0.parquet").to_pylist()
    assert [(row["user_id"], row["rank"]) for row in rows] == [(u, n) for u in ("new", "u001") for n in range(1, 21)]
    assert {row["item_id"] for row in rows} <= set(ITEMS)


def test_every_stage_of_bench_runs(samples: Path, given: dict[str, Path], tmp_path: Path) -> None:
    narrow = {"backbone": WIDTHS}
    backbone = {"sft_text": {**narrow, "loop": LOOP}, "sft": narrow}
    specs = stage_specs(sized("bench", **backbone), samples, tmp_path, seed=3, models=given)
    jobs.run(specs, tmp_path)
    found = check_chain(specs)
    assert {"sft_text", "grpo", "rf_hard", "sft_listwise", "grpo_ranked", "rank_hard", "a2po", "gdpo"} <= found.keys()
    check_nightly(specs, "bench", tmp_path)


def write_backbone(folder: Path, *, tied: bool) -> Path:
    """A tiny model in the form of Qwen3's: weights in bf16, more rows than tokens, no begin token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=272, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=512, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(1)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def production(samples: Path, given: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[StageSpec]:
    """All stages of the preset, done, from a backbone with tied embeddings."""
    folder = tmp_path_factory.mktemp("production")
    backbone = write_backbone(folder / "backbone", tied=True)
    job = sized("production", sft={"backbone": {"path": str(backbone)}})
    specs = stage_specs(job, samples, folder, seed=3, models=given)
    jobs.run(specs, folder)
    return specs


def test_every_stage_of_production_runs_from_a_backbone_by_path(production: list[StageSpec], tmp_path: Path) -> None:
    found = check_chain(production)
    assert {"sft", "sp_easy", "rf_hard", "rank_hard", "a2po"} <= found.keys()
    check_nightly(production, "production", tmp_path)


def test_a_model_trained_with_adapters_is_handed_on_whole_with_its_new_tokens(production: list[StageSpec]) -> None:
    sft = next(spec for spec in production if spec.stage == "sft")
    trained, vocabulary = load_backbone(sft.out_dir / "model")
    first = AutoModelForCausalLM.from_pretrained(sft.config["backbone"]["path"], dtype=torch.float32)
    assert {name for name, _ in trained.named_parameters()} == {name for name, _ in first.named_parameters()}
    before, after = first.get_input_embeddings().weight, trained.get_input_embeddings().weight
    assert after.shape[0] == len(vocabulary) > before.shape[0]
    assert not torch.equal(after[: len(before)], before)
    moved = (trained.model.layers[0].mlp.up_proj.weight - first.model.layers[0].mlp.up_proj.weight).detach()
    assert 0 < torch.linalg.matrix_rank(moved, rtol=1e-3) <= sft.config["backbone"]["lora"]["rank"]


def test_two_processes_with_shards_and_bf16_train_the_stages_that_take_several_gpus(
    production: list[StageSpec], tmp_path: Path
) -> None:
    """From a backbone whose embeddings are not tied; the second stage starts from what the first one wrote."""
    backbone = str(write_backbone(tmp_path / "backbone", tied=False))
    sft, stage = (next(spec for spec in production if spec.stage == name) for name in ("sft", "sp_easy"))
    sft = replace(sft, out=str(tmp_path / "sft"), config=jobs.merged(sft.config, {"backbone": {"path": backbone}}))
    stage = replace(stage, out=str(tmp_path / "sp_easy"), artifacts={**stage.artifacts, "sft": sft.out})
    files = [tmp_path / f"{spec.stage}.json" for spec in (sft, stage)]
    for spec, file in zip((sft, stage), files, strict=True):
        file.write_text(json.dumps(asdict(spec)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
                   "ACCELERATE_MIXED_PRECISION": "bf16"}  # fmt: skip
    command = [*torchrun, launched.__file__, *map(str, files)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=900)
    for spec in (sft, stage):
        losses = [json.loads(line).get("loss") for line in (spec.out_dir / "metrics.jsonl").read_text().splitlines()]
        said = [loss for loss in losses if loss is not None]
        assert said and all(map(math.isfinite, said))
        # Summed in float32: two processes' sums of 8 bits each would have at most 11.
        assert any(float(torch.tensor(loss).half()) != loss for loss in said)
    model, _ = load_backbone(stage.out_dir / "model")
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight
    assert json.loads((stage.out_dir / "gate.json").read_text())["accepted"]
