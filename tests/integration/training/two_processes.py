"""Short runs of each kind, in one process or two, started by torchrun: `two_processes.py OUT PROCESSES`.

Two processes do each run twice: with the whole model in each, and with FSDP. Each run leaves its metrics, the weights
that the model ends with, and in `held.json` how much of weights there was in a process after a step.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_forward_hook
from transformers import PreTrainedModel

from tests.unit.training.alignment_kit import killed_in_step
from training.core.backbone import BackboneConfig, LoraSettings, build_backbone
from training.core.contrastive import InBatchNegatives, Pair
from training.core.decoding import beam_search
from training.core.device import accelerator
from training.core.errors import Diverged, Preempted
from training.core.learner import Learner, Loss
from training.core.loop import Loop, LoopConfig, NextToken
from training.core.packing import Batch, Sample
from training.core.policy.groups import Group, Request
from training.core.policy.rewards import Term, by_group
from training.core.policy.rollouts import Sampling
from training.core.policy.schedule import Linear
from training.core.policy.surrogate import Clip, Surrogate
from training.core.policy.trainer import PolicyConfig, PolicyTrainer
from training.core.policy.variant import Difficulty, Variant
from training.core.policy.variants.agrl import agrl
from training.core.policy.variants.gdpo import DecoupledAdvantage
from training.core.policy.variants.guided_replay import GuidedReplay
from training.core.preference import Preference, PreferenceObjective, with_reference
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.core.trie import Trie

ROOT = Path(__file__).parents[3]
PROMPTS = [(1, 260 + n % 7) for n in range(41)]
ROUND = 5


Make = Callable[[], PreTrainedModel]
Run = Callable[[Make, Path, LoopConfig], PreTrainedModel]


def next_token(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    model = make()
    samples = [Sample(p, (260 + n % 5, 260 + n % 3, 2)[: 1 + n % 3]) for n, p in enumerate(PROMPTS)]
    loop: Loop[Sample] = Loop(model, 0, config, 3, out, "run")
    assert isinstance(loop._learner._summed, FSDPModule) == accelerator().is_fsdp2
    loop.train(lambda epoch: samples, samples[:5])
    return model


def resumed(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """The same, taken away in its fifth step and started again with the first weights."""
    with killed_in_step(5, softly=True), suppress(Preempted):
        next_token(make, out, config)
        raise AssertionError("it was not preempted")
    return next_token(make, out, config)


def diverged(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """The same, where the loss of one process alone is not a number in its fifth step; started again, it is one."""
    last, asked = accelerator().process_index == accelerator().num_processes - 1, 0
    real = NextToken.loss

    def loss(self: NextToken, model: PreTrainedModel, batch: Batch) -> Loss:
        nonlocal asked
        value, terms = real(self, model, batch)
        asked += torch.is_grad_enabled()
        return (value * float("nan") if last and asked > 4 * config.accumulate else value), terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NextToken, "loss", loss)
        with pytest.raises(Diverged, match="step 5"):
            next_token(make, out, replace(config, checkpoint_steps=4))
    return next_token(make, out, config)


def dropped(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """The same; the start of what each process dropped first is left in `masks.json`."""
    masks: list[Tensor] = []

    def see(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, nn.Dropout) and module.training:
            masks.append(output == 0)

    with register_module_forward_hook(see):
        model = next_token(make, out, config)
    everywhere = gather_object([masks[0].flatten()[:64].tolist()])
    if accelerator().is_main_process:
        (out / "masks.json").write_text(json.dumps(everywhere))
    return model


def preference(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """Softmax DPO over one to three rejected answers, evaluated by what the model recommends."""
    model = make()
    rejected = ((265, 2), (266, 267, 2), (268, 2))
    pairs = [Preference(p, (260 + n % 5, 2), rejected[: 1 + n % 3]) for n, p in enumerate(PROMPTS)]
    known = with_reference(model, pairs, 0, config.row_tokens)
    trie = Trie.build([(260 + n, 268 - n) for n in range(6)])

    def eval_fn() -> float:
        return -float(beam_search(model.eval(), trie, PROMPTS[:9], beams=3).log_probs.mean())

    Loop(model, 0, config, 3, out, "run", PreferenceObjective()).train(lambda epoch: known, known[:5], eval_fn)
    return model


def contrastive(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """All of a step's targets are negatives, those of the other process too; the keys make some of them alike."""
    model = make()
    pairs = [Pair(p, (260 + n % 5, 260 + n % 3, 2)[: 1 + n % 3], key=n % 15) for n, p in enumerate(PROMPTS)]
    Loop(model, 0, config, 3, out, "run", InBatchNegatives(0.1)).train(lambda epoch: pairs, pairs[:9])
    return model


def policy(make: Make, out: Path, config: LoopConfig, rollout: Sampling | None = None) -> PreTrainedModel:
    """Two mini-batches a round; the filter leaves the processes different numbers of groups, and sometimes none."""
    model = make()
    variant = Variant(
        rollout or Sampling(responses=4, max_tokens=3, end=2, top_k=50),
        [Term("even", 1.0, by_group(even_tokens))],
        Surrogate(Clip(0.01, 0.02), uncertain_clip=Clip(0.1, 0.2), kl=0.05, entropy=Linear(0.01)),
        keep=Difficulty(0.1, 0.75),
    )
    settings = PolicyConfig(rounds=6, prompts=ROUND, minibatch=3, rows=1, row_tokens=16, learning_rate=0.01)
    PolicyTrainer(model, 0, variant, settings, 3, out, "run").train([Request(prompt) for prompt in PROMPTS])
    return model


def policy_guided(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """Parts that look at all groups of all processes: an advantage over the batch, a share of the hardest, retries."""
    model = make()
    rollout = Sampling(responses=4, max_tokens=3, end=2, top_k=50)

    def grade(group: Group) -> Tensor:
        right = torch.tensor([float(response.tokens[0] % 2 == 0) for response in group.responses])
        # Of every third request all answers are right, of another third none is, whatever the hint.
        right = torch.full_like(right, 1.0 - group.request.context) if group.request.context < 2 else right
        return torch.stack([*torch.ones(2, len(right)), *right.expand(4, -1)], dim=1)

    replay = GuidedReplay(lambda request, slot: (260,) if slot == "label" else None, rollout, threshold=0.5, share=0.5)
    variant = replace(agrl(rollout, by_group(grade), replay, kl=0.05), advantage=DecoupledAdvantage())
    settings = PolicyConfig(rounds=8, prompts=ROUND, minibatch=3, rows=1, row_tokens=16, learning_rate=0.01)
    requests = [Request(prompt, n % 3) for n, prompt in enumerate(PROMPTS[:7])]
    PolicyTrainer(model, 0, variant, settings, 3, out, "run").train(requests)
    return model


def policy_resumed(make: Make, out: Path, config: LoopConfig) -> PreTrainedModel:
    """The same, where one process alone is asked to stop between its rollouts of the fourth round; started again."""
    last, batches = accelerator().process_index == accelerator().num_processes - 1, 0

    class Stopping(Sampling):
        def __call__(self, *given: Any) -> list[Group]:
            nonlocal batches
            batches += 1
            if last and batches == 3 * (ROUND // accelerator().num_processes) + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(*given)

    with pytest.raises(Preempted, match="round 3"):
        policy(make, out, config, Stopping(responses=4, max_tokens=3, end=2, top_k=50, batch_size=1))
    return policy(make, out, config)


def even_tokens(group: Group) -> Tensor:
    shares = [[float(token % 2 == 0) for token in response.tokens] for response in group.responses]
    return torch.tensor([sum(share) / len(share) for share in shares])


def shard() -> None:
    """FSDP on the CPU: accelerate's launcher knows it on GPUs only, and its `prepare` on both."""
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    plugin = FullyShardedDataParallelPlugin(**plugin_settings(), cpu_offload=False)
    if (precision := accelerator().mixed_precision) != "no":
        plugin.set_mixed_precision(precision)
    AcceleratorState._shared_state["fsdp_plugin"] = plugin
    # Every further `Accelerator` copies its state from here.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    assert accelerator().is_fsdp2


def plugin_settings() -> dict[str, Any]:
    """What infra/accelerate/several_gpus.yaml says, as the plugin's arguments."""
    said = yaml.safe_load((ROOT / "infra" / "accelerate" / "several_gpus.yaml").read_text())["fsdp_config"]
    return {
        "fsdp_version": said["fsdp_version"],
        "auto_wrap_policy": said["fsdp_auto_wrap_policy"].lower(),
        "reshard_after_forward": said["fsdp_reshard_after_forward"],
        "cpu_ram_efficient_loading": said["fsdp_cpu_ram_efficient_loading"],
    }


@dataclass
class Held:
    """Elements of the float tensors that a process holds after a step: the most that was seen in a run."""

    most: int = 0

    def look(self) -> None:
        """Count what is alive now, each piece of memory once."""
        gc.collect()
        tensors = [one for one in gc.get_objects() if issubclass(type(one), Tensor) and not isinstance(one, DTensor)]
        floats = [one.untyped_storage() for one in tensors if one.dtype == torch.float64]
        self.most = max(self.most, sum({one.data_ptr(): one.nbytes() // 8 for one in floats}.values()))


@contextmanager
def counted(held: Held) -> Iterator[None]:
    """Counts after the third step of what is trained in this block."""
    taken, steps = Learner.step, 0

    def step(self: Learner[Any], *arguments: Any) -> Any:
        nonlocal steps
        values = taken(self, *arguments)
        steps += 1
        if steps == 3:
            held.look()
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", step)
        yield


def main(out: Path, processes: int) -> None:
    torch.set_num_threads(1)
    run_all(out, processes)
    if processes > 1:
        shard()
        run_all(out / "sharded", processes)


def run_all(out: Path, processes: int) -> None:
    vocabulary = Vocabulary.create(train_text_tokenizer(["pen"], 270), {"item": (4, 4)})
    sizes = BackboneConfig(hidden_size=16, layers=2, heads=2, kv_heads=1, head_size=8, intermediate_size=24)
    adapted = replace(sizes, lora=LoraSettings(rank=2, dropout=0.0), gradient_checkpointing=True)
    noisy = replace(adapted, lora=LoraSettings(rank=2, dropout=0.5))
    config = LoopConfig(epochs=2, rows=2, accumulate=2 // processes, row_tokens=16, learning_rate=0.01, log_steps=1)
    runs: dict[str, tuple[Run, BackboneConfig]] = {
        "next_token": (next_token, sizes),
        "resumed": (resumed, sizes),
        "diverged": (diverged, sizes),
        "preference": (preference, sizes),
        "contrastive": (contrastive, sizes),
        "policy": (policy, sizes),
        "policy_guided": (policy_guided, sizes),
        "policy_resumed": (policy_resumed, sizes),
        "resumed_lora": (resumed, adapted),
        "policy_lora": (policy, adapted),
        "dropped": (dropped, noisy),
        "dropped_resumed": (resumed, noisy),
    }
    for name, (run, backbone) in runs.items():
        folder, held = out / name, Held()
        folder.mkdir(parents=True, exist_ok=True)
        with counted(held):
            leave(folder, run(partial(made, backbone, vocabulary), folder, config), held)


def made(config: BackboneConfig, vocabulary: Vocabulary) -> PreTrainedModel:
    return build_backbone(config, vocabulary, seed=1).double()


def leave(folder: Path, model: PreTrainedModel, held: Held) -> None:
    """What the tests look at."""
    if not accelerator().is_main_process:
        return
    weights = dict(model.named_parameters())
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, folder / "ended.safetensors")
    sizes = [(weight.numel(), weight.requires_grad) for weight in weights.values()]
    counts = {"held": held.most, "weights": sum(n for n, _ in sizes), "learn": sum(n for n, learns in sizes if learns)}
    (folder / "held.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
