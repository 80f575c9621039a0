"""The loop: equal trajectories where they must be equal, one pinned trajectory, and a resume that leaves no trace."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.training.conftest import TINY
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone
from training.core.checkpoint import places, trainable
from training.core.errors import DataError, Preempted
from training.core.loop import Loop, LoopConfig, Trained, learning_rate
from training.core.packing import Sample
from training.core.stage import CHECKPOINTS
from training.core.tokens import Vocabulary

CONFIG = LoopConfig(epochs=3, rows=2, row_tokens=16, learning_rate=0.01, checkpoint_steps=3, log_steps=1)
DROPOUT = replace(TINY, dropout=0.1, embedding_dropout=0.1, residual_dropout=0.1)

# Loss of steps 1, 5 and 9 and validation loss of each epoch; record again only with the reason in the commit message.
GOLDEN_LOSS = [5.56829, 4.83454, 4.43378]
GOLDEN_VALID_LOSS = [5.04136, 4.58831, 4.47731]


class Run:
    """One run of the loop in a folder, with a fresh model."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        folder: Path,
        config: LoopConfig = CONFIG,
        backbone: BackboneConfig = TINY,
        name: str = "run",
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.model = build_backbone(backbone, vocabulary, seed=7)
        self._loop = Loop(self.model, vocabulary.tokenizer.pad_token_id, config, 5, folder, name)

    def train(self, samples: list[Sample]) -> Trained:
        return self._loop.train(lambda epoch: samples[:18], samples[18:])

    def logged(self, name: str) -> list[float]:
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line[name] for line in lines if name in line]


def test_the_learning_rate_warms_up_and_falls_as_a_cosine_to_zero() -> None:
    config = LoopConfig(learning_rate=2.0, warmup_share=0.2)
    assert [round(learning_rate(step, 10, config), 3) for step in (0, 1, 2, 6, 10)] == [1.0, 2.0, 2.0, 1.0, 0.0]


def test_the_loss_of_the_pinned_run_has_not_moved(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    run = Run(vocabulary, tmp_path)
    run.train(samples)
    assert run.logged("loss")[::4] == pytest.approx(GOLDEN_LOSS, rel=2e-3)
    assert run.logged("valid_loss") == pytest.approx(GOLDEN_VALID_LOSS, rel=2e-3)


def test_accumulating_micro_batches_is_the_same_as_one_large_batch(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    batch = Run(vocabulary, tmp_path / "batch", replace(CONFIG, rows=4))
    parts = Run(vocabulary, tmp_path / "parts", replace(CONFIG, rows=1, accumulate=4))
    batch.train(samples), parts.train(samples)
    assert parts.logged("loss") == pytest.approx(batch.logged("loss"), rel=1e-4)
    assert parts.logged("grad_norm") == pytest.approx(batch.logged("grad_norm"), rel=1e-3)


def test_the_same_seed_gives_the_same_bits(vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path) -> None:
    one, two = (Run(vocabulary, tmp_path / name, backbone=DROPOUT) for name in ("one", "two"))
    one.train(samples), two.train(samples)
    assert one.logged("loss") == two.logged("loss")


@pytest.mark.parametrize("killed_at", [2, 5, 8])
def test_a_run_that_was_killed_and_resumed_ends_with_the_bits_of_a_straight_one(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    straight = Run(vocabulary, tmp_path / "straight", backbone=DROPOUT)
    expected = straight.train(samples)
    killed = Run(vocabulary, tmp_path / "resumed", backbone=DROPOUT)
    with monkeypatch.context() as patch, pytest.raises(Preempted, match="checkpoint saved"):
        patch.setattr("training.core.loop.learning_rate", _sigterm_at(killed_at))
        killed.train(samples)
    resumed = Run(vocabulary, tmp_path / "resumed", backbone=DROPOUT)
    trained = resumed.train(samples)
    assert trained.resumed_from == killed_at + 1
    assert (trained.steps, trained.best_step, trained.valid_loss) == (
        expected.steps,
        expected.best_step,
        expected.valid_loss,
    )
    assert resumed.logged("loss") == straight.logged("loss")
    for name, weight in trainable(straight.model).items():
        assert torch.equal(weight, trainable(resumed.model)[name]), name


def _sigterm_at(step: int) -> Callable[[int, int, LoopConfig], float]:
    def rate(current: int, total: int, config: LoopConfig) -> float:
        if current == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(current, total, config)

    return rate


def test_the_model_ends_with_its_best_weights_and_training_stops_when_it_gets_worse(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=40, patience=2, learning_rate=0.3)
    run = Run(vocabulary, tmp_path, config)
    trained = run.train(samples)
    losses = run.logged("valid_loss")
    assert trained.valid_loss == min(losses)
    assert len(losses) == losses.index(min(losses)) + 1 + config.patience < config.epochs
    assert run._loop.valid_loss(samples[18:]) == pytest.approx(min(losses), rel=1e-6)


def test_training_on_nothing_is_refused(vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        Run(vocabulary, tmp_path)._loop.train(lambda epoch: [], samples)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    Run(vocabulary, tmp_path, name="before").train(samples)
    again = Run(vocabulary, tmp_path, name="after")
    assert again.train(samples).resumed_from is None
    assert len(again.logged("loss")) == 9


def test_lora_trains_through_the_same_loop(vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path) -> None:
    run = Run(vocabulary, tmp_path, replace(CONFIG, epochs=6), backbone=replace(TINY, lora=LoraSettings(rank=2)))
    run.train(samples)
    assert run.logged("valid_loss")[-1] < run.logged("valid_loss")[0]


def test_all_that_a_run_needs_to_go_on_is_in_the_one_folder_that_goes_with_its_result(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    Run(vocabulary, tmp_path).train(samples)
    assert {file.name for file in tmp_path.iterdir()} == {CHECKPOINTS, "metrics.jsonl"}


def test_a_broken_checkpoint_is_named(vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path) -> None:
    Run(vocabulary, tmp_path).train(samples)
    weights = places(tmp_path)[0] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"(?s)missing or broken.*weights\.safetensors"):
        Run(vocabulary, tmp_path).train(samples)


def test_learning_the_task_brings_the_loss_far_below_chance(
    vocabulary: Vocabulary, samples: list[Sample], tmp_path: Path
) -> None:
    run = Run(vocabulary, tmp_path, replace(CONFIG, epochs=20, patience=20))
    trained = run.train(samples)
    assert trained.valid_loss < 0.5 * math.log(len(vocabulary))
