"""Short runs of each kind, in one process or two, started by torchrun: `two_processes.py OUT PROCESSES`.

Two processes do each run twice: with the whole model in each, and with FSDP.
"""

import copy
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from tests.unit.training.rung_kit import killed_in_step
from training.core.backbone import BackboneConfig, build_backbone
from training.core.device import accelerator
from training.core.errors import Preempted
from training.core.loop import Loop, LoopConfig
from training.core.packing import Sample
from training.core.policy.groups import Group, Request
from training.core.policy.rewards import Term
from training.core.policy.rollouts import Sampling
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variant import Difficulty, Variant
from training.core.preference import Preference, PreferenceObjective, with_reference
from training.core.tokens import Vocabulary, train_text_tokenizer

ROOT = Path(__file__).parents[3]
PROMPTS = [(1, 260 + n % 7) for n in range(41)]


def next_token(model: PreTrainedModel, out: Path, config: LoopConfig) -> None:
    samples = [Sample(p, (260 + n % 5, 260 + n % 3, 2)[: 1 + n % 3]) for n, p in enumerate(PROMPTS)]
    loop = Loop(model, 0, config, 3, out, "run")
    assert isinstance(loop._learner._summed, FSDPModule) == accelerator().is_fsdp2
    loop.train(lambda epoch: samples, samples[:5])


def resumed(model: PreTrainedModel, out: Path, config: LoopConfig) -> None:
    """The same, taken away in its fifth step and started again with the first weights."""
    fresh = copy.deepcopy(model)
    with killed_in_step(5, softly=True), suppress(Preempted):
        next_token(model, out, config)
        raise AssertionError("it was not preempted")
    next_token(fresh, out, config)


def preference(model: PreTrainedModel, out: Path, config: LoopConfig) -> None:
    pairs = [Preference(p, (260 + n % 5, 2), ((265, 2), (266, 267, 2))[: 1 + n % 2]) for n, p in enumerate(PROMPTS)]
    known = with_reference(model, pairs, 0, config.row_tokens)
    Loop(model, 0, config, 3, out, "run", PreferenceObjective()).train(lambda epoch: known, known[:5])


def policy(model: PreTrainedModel, out: Path, config: LoopConfig) -> None:
    """Two mini-batches a round; the filter leaves the processes different numbers of groups, and sometimes none."""
    variant = Variant(
        Sampling(responses=4, max_tokens=3, end=2, top_k=50),
        [Term("even", 1.0, even_tokens)],
        Surrogate(Clip(0.01, 0.02), uncertain_clip=Clip(0.1, 0.2), kl=0.05, entropy_start=0.01),
        keep=Difficulty(0.1, 0.75),
    )
    settings = PolicyConfig(rounds=6, prompts=5, minibatch=3, rows=1, row_tokens=16, learning_rate=0.01)
    PolicyTrainer(model, 0, variant, settings, 3, out, "run").train([Request(prompt) for prompt in PROMPTS])


def even_tokens(group: Group) -> Tensor:
    shares = [[float(token % 2 == 0) for token in response.tokens] for response in group.responses]
    return torch.tensor([sum(share) / len(share) for share in shares])


def shard() -> None:
    """FSDP on the CPU: accelerate's launcher knows it on GPUs only, and its `prepare` on both."""
    accelerator()
    state = AcceleratorState()
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    plugin = FullyShardedDataParallelPlugin(**plugin_settings(), cpu_offload=False)
    state._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}


def plugin_settings() -> dict[str, Any]:
    """What infra/accelerate/several_gpus.yaml says, as the plugin's arguments."""
    said = yaml.safe_load((ROOT / "infra" / "accelerate" / "several_gpus.yaml").read_text())["fsdp_config"]
    return {
        "fsdp_version": said["fsdp_version"],
        "auto_wrap_policy": said["fsdp_auto_wrap_policy"].lower(),
        "reshard_after_forward": said["fsdp_reshard_after_forward"],
        "cpu_ram_efficient_loading": said["fsdp_cpu_ram_efficient_loading"],
    }


def main(out: Path, processes: int) -> None:
    torch.set_num_threads(1)
    run_all(out, processes)
    if processes > 1:
        shard()
        run_all(out / "sharded", processes)


def run_all(out: Path, processes: int) -> None:
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), {"item": (4, 4)})
    sizes = BackboneConfig(hidden_size=16, layers=2, heads=2, kv_heads=1, head_size=8, intermediate_size=24)
    config = LoopConfig(epochs=2, rows=2, accumulate=2 // processes, row_tokens=16, learning_rate=0.01, log_steps=1)
    for run in (next_token, resumed, preference, policy):
        folder = out / run.__name__
        folder.mkdir(parents=True, exist_ok=True)
        run(build_backbone(sizes, vocabulary, seed=1).double(), folder, config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
