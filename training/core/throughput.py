"""How fast a training step is: model FLOPs per token, and the share of the device's peak that they use (MFU).

PaLM's count (Chowdhery et al. 2022, appendix B): 6 FLOPs per weight and token for the matrix products, forward and
backward, and 12 * layers * heads * head size * length for attention. It counts the model, not the implementation:
recomputed activations and padding earn nothing.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

# Dense bf16 FLOPs per second from the makers' data sheets; the first name that is part of the device's counts.
_PEAKS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
)


def peak_flops(device: torch.device) -> float | None:
    """The device's peak in dense bf16 FLOPs per second; None for a CPU or a device that is not in the table."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """The peak by the device's name; None if it is unknown."""
    return next((peak for known, peak in _PEAKS if known in name), None)


def matrix_weights(model: PreTrainedModel) -> int:
    """Weights that every token is multiplied with: all but an input embedding that is not the output's too."""
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    looked_up = 0 if tied else int(embedding.numel())
    return sum(int(weight.numel()) for weight in model.parameters()) - looked_up


def flops_per_token(model: PreTrainedModel, length: float) -> float:
    """Training FLOPs of one token in a sequence of `length` tokens."""
    config = model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 6.0 * matrix_weights(model) + 12.0 * int(config.num_hidden_layers) * heads * width * length
