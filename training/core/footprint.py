"""What training and decoding ask of a GPU, from the shapes of the model alone: would it fit, before one is paid for?

An estimate, meant to be on the safe side by some tens of percent: no kernel's workspace and no fragmentation are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from transformers import PreTrainedModel

from training.core.backbone import BackboneConfig, outline
from training.core.heads import LOGITS_AT_ONCE

GIB = 2**30
# The share of a GPU that the estimate may take: the rest is for what it leaves out.
USABLE = 0.9


@dataclass(frozen=True)
class Decoding:
    """`requests` prompts of `prompt` tokens at once, each with `answers` beams or samples of `tokens` tokens."""

    requests: int
    prompt: int
    answers: int
    tokens: int


@dataclass(frozen=True)
class Load:
    """A micro-batch of a stage: `rows` rows of `row_tokens` tokens through `backbone`.

    `tokens`: what is added to the vocabulary (a backbone of one's own: all of it). `longest`: tokens of the longest
    sample, which a row must hold; `positions`: of the longest sequence in it. `reference`: the weights stand there once
    more as they were at the start. `decoding`: the largest that the stage does between its steps.
    """

    backbone: BackboneConfig
    tokens: int
    rows: int
    row_tokens: int
    longest: int
    positions: int
    reference: bool = False
    decoding: Decoding | None = None


@dataclass(frozen=True)
class Footprint:
    """Weights, those that learn, and GiB per GPU: while the model is loaded or written, in a step, while it decodes."""

    weights: int
    trainable: int
    whole: float
    training: float
    decoding: float
    max_positions: int

    @property
    def peak(self) -> float:
        """The largest of the three, in GiB."""
        return max(self.whole, self.training, self.decoding)


@cache
def footprint(load: Load, gpus: int) -> Footprint:
    """The estimate, with weights, gradients, optimizer state and reference sharded over `gpus` (FSDP).

    Float32 weights, gradients and two moments: 4, 4 and 8 bytes; 2 for a weight that does not learn. Weights in bf16
    for their products, 2; on several GPUs those of two layers at a time and of what is in no layer, with their
    gradients before they are summed, 2 and 4. Activations of 34 bytes per token, layer and unit of width, or 2 with
    gradient checkpointing and one layer whole (Korthikanti et al. 2022, table 2, without the attention matrix). Logits
    of all tokens, in bf16, float32 and their gradient: 10. Before and after the steps a float32 model is whole on
    each GPU (`core.learner`), beside its shards; between them one in bf16 decodes.
    """
    model = outline(load.backbone, load.tokens)
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    weights, trainable = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    config, batch = model.config, load.rows * load.row_tokens
    unit = batch * config.hidden_size
    layers = config.num_hidden_layers
    kept = 2 * layers + 34 if load.backbone.gradient_checkpointing else 34 * layers
    logits = 10 * batch * model.get_input_embeddings().weight.shape[0]
    state = (2 * (weights - trainable) + 16 * trainable + 4 * trainable * load.reference) / gpus
    in_layers = sum(weight.numel() for weight in model.get_decoder().layers.parameters())
    rounded = 2 * (trainable if gpus == 1 else weights)
    products = rounded if gpus == 1 else 8 * (weights - in_layers * max(0, layers - 2) / layers)
    whole = 4 * weights + state * (gpus > 1)
    training = state + products + kept * unit + logits
    decoding = state + rounded + _decoded(load.decoding, model) if load.decoding else 0.0
    positions = config.max_position_embeddings
    return Footprint(weights, trainable, whole / GIB, training / GIB, decoding / GIB, positions)


def _decoded(load: Decoding, model: PreTrainedModel) -> int:
    """Bytes of keys and values in bf16, of one layer's activations of all prompts, and of the logits there at once.

    Logits: in bf16, in float32, and once more while they are summed.
    """
    config, vocabulary = model.config, int(model.get_input_embeddings().weight.shape[0])
    heads, layers, hidden = map(int, (config.num_key_value_heads, config.num_hidden_layers, config.hidden_size))
    width = heads * int(getattr(config, "head_dim", None) or hidden // config.num_attention_heads)
    cache = 4 * load.requests * (load.prompt + load.answers * load.tokens) * layers * width
    layer = 34 * load.requests * load.prompt * hidden
    return cache + layer + 10 * min(load.requests * load.answers * vocabulary, LOGITS_AT_ONCE)


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
    if found.decoding > room:
        found_faults.append(f"{found.decoding:.0f} GiB to decode: ask for fewer beams, or take more GPUs")
    return found_faults
