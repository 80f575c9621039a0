"""Model FLOPs and their share of the device's peak."""

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.unit.training.alignment_runs import POLICY, optimise, ranked_beams
from tests.unit.training.peers import tiny_qwen
from training.core import learner
from training.core.policy.trainer import PolicyConfig
from training.core.throughput import flops_per_token, matrix_weights, peak_flops, peak_of


def test_a_token_costs_six_flops_per_weight_and_twelve_per_layer_head_width_and_length() -> None:
    model = tiny_qwen(seed=0)
    assert matrix_weights(model) == sum(weight.numel() for weight in model.parameters())
    # 2 layers, 2 heads of 8
    assert flops_per_token(model, 100.0) - flops_per_token(model, 0.0) == 12 * 2 * 2 * 8 * 100
    assert flops_per_token(model, 0.0) == 6 * matrix_weights(model)


def test_an_input_embedding_of_its_own_is_looked_up_and_not_multiplied() -> None:
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config)
    assert matrix_weights(model) == sum(weight.numel() for weight in model.parameters()) - 50 * 8


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("X1", None),
    ],
)
def test_the_peak_goes_by_the_name_of_the_device(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize(("peak", "logged"), [(None, False), (1e12, True)])
def test_mfu_is_logged_where_the_peak_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak: float | None, logged: bool
) -> None:
    monkeypatch.setattr(learner, "peak_flops", lambda device: peak)
    config: PolicyConfig = POLICY
    _, lines = optimise(tmp_path, ranked_beams(), config)
    steps = [line for line in lines if "grad_norm" in line]
    assert all(("mfu" in step) is logged for step in steps)
    if logged:
        # The same tokens in both figures, so their ratio is FLOPs per token by peak, whatever the clock says.
        cost = steps[0]["mfu"] / steps[0]["tokens_per_second"] * 1e12
        assert flops_per_token(tiny_qwen(0), 2) < cost < flops_per_token(tiny_qwen(0), 40)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]).keys() >= {"tokens_per_second"}
