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
    sample, which a row must hold; `positions`: of the longest sequence in it. `reference`: a frozen copy stands beside.
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
    """Weights, those that learn, and GiB per GPU: while the model is loaded, and while it trains."""

    weights: int
    trainable: int
    loading: float
    training: float
    max_positions: int

    @property
    def peak(self) -> float:
        """The larger of the two, in GiB."""
        return max(self.loading, self.training)


@cache
def footprint(load: Load, gpus: int) -> Footprint:
    """The estimate, with weights, gradients and optimizer state sharded over `gpus` (FSDP).

    Float32 weights, gradients and two moments: 4, 4 and 8 bytes; on one GPU the weights in bf16 for its products, on
    several the whole float32 copy that each keeps and from which the shards are cut (`core.learner`); activations of
    34 bytes per token, layer and unit of width, or 2 with gradient checkpointing and one layer whole (Korthikanti et
    al. 2022, table 2, without the attention matrix); logits of all tokens, in bf16, float32 and their gradient: 10.
    """
    model = outline(load.backbone, load.tokens)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    weights, trainable = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    config, batch = model.config, load.rows * load.row_tokens
    unit = batch * config.hidden_size
    layers = config.num_hidden_layers
    kept = 2 * layers + 34 if load.backbone.gradient_checkpointing else 34 * layers
    copies = 4 * weights * ((gpus > 1) + load.reference) + 2 * weights * (gpus == 1)
    logits = 10 * batch * model.get_input_embeddings().weight.shape[0]
    training = (4 * weights + 12 * trainable) / gpus + copies + kept * unit + logits
    loading = 4 * weights * (1 if gpus == 1 else 2)
    return Footprint(weights, trainable, loading / GIB, training / GIB, config.max_position_embeddings)


def faults(load: Load, found: Footprint, gpu_gib: float) -> list[str]:
    """What does not fit, each with what to change."""
    room, found_faults = USABLE * gpu_gib, []
    if load.longest > load.row_tokens:
        found_faults.append(f"a sample of {load.longest} tokens in rows of {load.row_tokens}: raise `row_tokens`")
    if load.positions > found.max_positions:
        found_faults.append(
            f"a sequence of {load.positions} tokens, the backbone takes {found.max_positions}: shorten `history`"
        )
    if found.loading > room:
        found_faults.append(f"{found.loading:.0f} GiB of weights before they are sharded: take a smaller backbone")
    if found.training > room:
        found_faults.append(
            f"{found.training:.0f} GiB to train: lower `rows` (and raise `accumulate`), or take more GPUs"
        )
    return found_faults
