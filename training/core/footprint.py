"""What a training step asks of a GPU, from the shapes of the model alone: would it fit, before a machine is paid for?

An estimate, meant to be on the safe side by some tens of percent: no kernel's workspace and no fragmentation are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from training.core.backbone import BackboneConfig, outline

GIB = 2**30
# The share of a GPU that the estimate may take: the rest is for what it leaves out.
USABLE = 0.9


@dataclass(frozen=True)
class Load:
    """A micro-batch of a stage: `rows` rows of `row_tokens` tokens through `backbone`.

    `tokens`: what is added to the vocabulary (a backbone of one's own: all of it). `longest`: tokens of the longest
    sample, which a row must hold; `positions`: of the longest sequence in it. `reference`: the weights stand there once
    more as they were at the start.
    """

    backbone: BackboneConfig
    tokens: int
    rows: int
    row_tokens: int
    longest: int
    positions: int
    reference: bool = False


@dataclass(frozen=True)
class Footprint:
    """Weights, those that learn, and GiB per GPU: while the model is whole (loaded, judged, written), and in a step."""

    weights: int
    trainable: int
    whole: float
    training: float
    max_positions: int

    @property
    def peak(self) -> float:
        """The larger of the two, in GiB."""
        return max(self.whole, self.training)


@cache
def footprint(load: Load, gpus: int) -> Footprint:
    """The estimate, with weights, gradients, optimizer state and reference sharded over `gpus` (FSDP).

    Float32 weights, gradients and two moments: 4, 4 and 8 bytes; the weights in bf16 for their products, 2, on several
    GPUs of two layers at a time and of what is in no layer, with their gradients before they are summed, 2 and 4;
    activations of 34 bytes per token, layer and unit of width, or 2 with gradient checkpointing and one layer whole
    (Korthikanti et al. 2022, table 2, without the attention matrix); logits of all tokens, in bf16, float32 and their
    gradient: 10. Before, after and between the steps a float32 model is whole on each GPU (`core.learner`), beside its
    shards.
    """
    model = outline(load.backbone, load.tokens)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    weights, trainable = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    config, batch = model.config, load.rows * load.row_tokens
    unit = batch * config.hidden_size
    layers = config.num_hidden_layers
    kept = 2 * layers + 34 if load.backbone.gradient_checkpointing else 34 * layers
    logits = 10 * batch * model.get_input_embeddings().weight.shape[0]
    state = (4 * weights + 12 * trainable + 4 * trainable * load.reference) / gpus
    in_layers = sum(weight.numel() for weight in model.get_decoder().layers.parameters())
    products = 2 * weights if gpus == 1 else 8 * (weights - in_layers * max(0, layers - 2) / layers)
    whole = 4 * weights + state * (gpus > 1)
    training = state + products + kept * unit + logits
    return Footprint(weights, trainable, whole / GIB, training / GIB, config.max_position_embeddings)


def faults(load: Load, found: Footprint, gpu_gib: float) -> list[str]:
    """What does not fit, each with what to change."""
    room, found_faults = USABLE * gpu_gib, []
    if load.longest > load.row_tokens:
        found_faults.append(f"a sample of {load.longest} tokens in rows of {load.row_tokens}: raise `row_tokens`")
    if load.positions > found.max_positions:
        found_faults.append(
            f"a sequence of {load.positions} tokens, the backbone takes {found.max_positions}: shorten `history`"
        )
    if found.whole > room:
        found_faults.append(f"{found.whole:.0f} GiB while the model is whole: take a smaller backbone, or more GPUs")
    if found.training > room:
        found_faults.append(
            f"{found.training:.0f} GiB to train: lower `rows` (and raise `accumulate`), or take more GPUs"
        )
    return found_faults
