"""Short training runs on preferences and policies, and the pinned trajectories of some of them.

`python -m tests.unit.training.alignment_runs` records the trajectories again; give the reason in the commit message.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.unit.training.peers import tiny_qwen
from training.core.loop import Loop, LoopConfig
from training.core.policy.groups import Group, Request
from training.core.policy.rewards import Term, by_group
from training.core.policy.rollouts import Beams, Sampling
from training.core.policy.schedule import Linear
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.trainer import PolicyConfig, PolicyTrainer, TrainedPolicy
from training.core.policy.variant import Variant
from training.core.policy.variants.grpo import grpo
from training.core.preference import Preference, PreferenceObjective, with_reference
from training.core.trie import Trie
from training.generative_rec.rewards import RANKING

Lines = list[dict[str, float]]
TIMES = {"tokens_per_second", "rollout_seconds", "mfu"}
GOLDEN = Path(__file__).parent / "golden"

ITEMS = [(a, b) for a in (20, 21, 22) for b in (25, 26, 27, 28)]
REQUESTS = [Request((5 + n % 7, 9 + n % 3), ITEMS[5 * n % 12]) for n in range(10)]
PREFERENCES = [
    Preference((5 + n % 7, 9 + n % 3), (20, 21, 2), ((22, 2), (23, 24, 2), (25, 2))[: 1 + n % 3]) for n in range(12)
]
LOOP = LoopConfig(epochs=6, rows=2, row_tokens=24, learning_rate=0.003, log_steps=1)
POLICY = PolicyConfig(rounds=8, prompts=4, minibatch=2, rows=2, row_tokens=40, learning_rate=0.003, eval_rounds=3)


def assert_same(one: Lines, other: Lines, **how: float) -> None:
    """The same metrics, but for the time they took."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() - TIMES:
            assert left[name] == pytest.approx(right[name], **how), name


def read(folder: Path) -> Lines:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def prefer(
    folder: Path,
    objective: PreferenceObjective,
    samples: Sequence[Preference] = PREFERENCES,
    config: LoopConfig = LOOP,
    model: PreTrainedModel | None = None,
    **how: Callable[[], float],
) -> Lines:
    """Train on preferences; the reference is the model at the start."""
    folder.mkdir(exist_ok=True)
    model = model or tiny_qwen(seed=0)
    known = with_reference(model, samples, pad=0, row_tokens=config.row_tokens)
    Loop(model, 0, config, 5, folder, "run", objective).train(lambda epoch: known, known, **how)
    return read(folder)


def optimise(
    folder: Path,
    variant: Variant,
    config: PolicyConfig = POLICY,
    model: PreTrainedModel | None = None,
    requests: Sequence[Request] = REQUESTS,
    **how: Callable[[], float],
) -> tuple[TrainedPolicy, Lines]:
    """Train a policy with a variant."""
    folder.mkdir(exist_ok=True)
    trainer = PolicyTrainer(model or tiny_qwen(seed=0), 0, variant, config, 5, folder, "run")
    return trainer.train(requests, **how), read(folder)


def ranked_beams(kl: float = 0.05) -> Variant:
    """MiniOneRec's recipe: GRPO over the beams of the catalogue."""
    return grpo(Beams(Trie.build(ITEMS), ITEMS, 6), RANKING, kl=kl)


def many_high_tokens(group: Group) -> Tensor:
    """The share of a response's tokens above 15, less a little for its length."""
    sizes = torch.tensor([float(len(response.tokens)) for response in group.responses])
    high = torch.tensor([float(sum(token > 15 for token in response.tokens)) for response in group.responses])
    return high / sizes - 0.05 * sizes


def sampled() -> Variant:
    """Free samples, with every switch of the surrogate on."""
    surrogate = Surrogate(
        Clip(0.1, 0.15), uncertain_clip=Clip(0.2, 0.3), kl=0.02, entropy=Linear(0.02), aggregate="token"
    )
    rollout = Sampling(responses=6, max_tokens=5, end=2, temperature=0.9, top_k=16)
    return Variant(rollout, [Term("high", 1.0, by_group(many_high_tokens))], surrogate)


GOLDEN_RUNS: dict[str, Callable[[Path], Lines]] = {
    "dpo": lambda folder: prefer(
        folder,
        PreferenceObjective(beta=0.3),
        [replace(sample, rejected=sample.rejected[:1]) for sample in PREFERENCES],
        model=tiny_qwen(seed=0).double(),
    ),
    "softmax_dpo": lambda folder: prefer(
        folder, PreferenceObjective(beta=0.5, ntp_weight=0.1), model=tiny_qwen(seed=0).double()
    ),
    "grpo_beams": lambda folder: optimise(folder, ranked_beams(), model=tiny_qwen(seed=0).double())[1],
    "policy_sampled": lambda folder: optimise(folder, sampled(), model=tiny_qwen(seed=0).double())[1],
}


def trajectory(lines: Lines) -> dict[str, list[float]]:
    """Loss and gradient norm of every step."""
    steps = [line for line in lines if "grad_norm" in line]
    return {name: [line[name] for line in steps] for name in ("loss", "grad_norm")}


def main() -> None:
    """Record all trajectories with the versions of the libraries that made them."""
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("torch", "transformers", "accelerate")}
    for name, run in GOLDEN_RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = {"versions": versions, **trajectory(run(Path(folder)))}
        (GOLDEN / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
