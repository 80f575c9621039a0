"""The language model: a small Qwen3 made from a config, or a Hugging Face causal LM; optional LoRA.

A causal LM comes from a local folder, or from a package (`core.embedded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from training.core.device import accelerator
from training.core.dropout import add_dropout
from training.core.embedded import PREFIX, embedded_config, local_folder
from training.core.errors import DataError
from training.core.precision import products, wish_bf16
from training.core.tokens import Vocabulary, fit_embeddings


@dataclass(frozen=True)
class LoraSettings:
    """LoRA on all linear layers of attention and MLP.

    Where there are tokens that the model has not known, the embeddings are trained in full beside it.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05


@dataclass(frozen=True)
class BackboneConfig:
    """`path`: a local checkpoint folder, or `embedded:smollm2`; without one, a fresh Qwen3 of the given sizes.

    In training `dropout` drops attention weights (of a backbone without a path), `embedding_dropout` parts of the token
    embeddings, and `residual_dropout` parts of what attention and dense block add to the residual stream. `bf16`:
    whether products are rounded to it on a CPU that has it, too; null: those of a backbone with a path are.
    """

    path: str | None = None
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    head_size: int = 32
    intermediate_size: int = 384
    max_positions: int = 512
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    residual_dropout: float = 0.0
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    bf16: bool | None = None


def build_backbone(
    config: BackboneConfig, vocabulary: Vocabulary, seed: int, meanings: Mapping[str, str] | None = None
) -> PreTrainedModel:
    """A model with one embedding row per token of `vocabulary`, fresh rows seeded, on the process's device.

    `meanings`: what new tokens of a trained backbone start as, see `fit_embeddings`.

    What learns is float32. What does not, under LoRA, is in the products of the device: it is rounded once and not in
    every pass.
    """
    torch.manual_seed(seed)
    wished = config.path is not None if config.bf16 is None else config.bf16
    rounded = products(wished) or torch.float32
    if config.path is None:
        roles = {name: getattr(vocabulary.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        model = Qwen3ForCausalLM(_qwen3(config, len(vocabulary), **roles))
    else:
        model = _from_folder(local_folder(config.path), torch.float32 if config.lora is None else rounded)
        fit_embeddings(model, vocabulary, meanings)
    if wished:
        wish_bf16(model)
    add_dropout(model, config.embedding_dropout, config.residual_dropout)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    unknown = config.path is None or len(vocabulary) > vocabulary.known
    adapted = model if config.lora is None else _with_lora(model, config.lora, unknown)
    for weight in adapted.parameters():
        weight.data = weight.data.to(torch.float32 if weight.requires_grad else rounded)
    return adapted.to(accelerator().device)


def _qwen3(config: BackboneConfig, tokens: int, **roles: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=tokens,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_size,
        attention_dropout=config.dropout,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        **roles,
    )


def outline(config: BackboneConfig, tokens: int) -> PreTrainedModel:
    """The model's shapes on the meta device, `tokens` more than its own (without a path: that many); nothing is read
    but its `config.json`. DataError where that is not there."""
    with torch.device("meta"):
        if config.path is None:
            model: PreTrainedModel = Qwen3ForCausalLM(_qwen3(config, tokens))
        else:
            model = AutoModelForCausalLM.from_config(_config_of(config.path))
            model.resize_token_embeddings(model.config.vocab_size + tokens, mean_resizing=False)
        return model if config.lora is None else _with_lora(model, config.lora, tokens > 0)


def _config_of(path: str) -> PreTrainedConfig:
    if path.startswith(PREFIX):
        return embedded_config(path)
    if not (Path(path) / "config.json").is_file():
        raise DataError("there is no backbone", where=path, do="give the path of a local Hugging Face model")
    return AutoConfig.from_pretrained(path, local_files_only=True)


def _with_lora(model: PreTrainedModel, settings: LoraSettings, unknown_tokens: bool) -> PreTrainedModel:
    """Only embeddings (and a head of their own) can learn what a token means; known ones need not be learnt again."""
    tied = model.config.tie_word_embeddings
    in_full = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        modules_to_save=in_full if unknown_tokens else None,
        ensure_weight_tying=tied and unknown_tokens,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def save_backbone(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path) -> None:
    """Write weights (safetensors, LoRA merged in), model config and vocabulary into `folder`."""
    # Merged in float32: what an adapter adds to a weight can be less than the rounding of bf16.
    plain = model.float().merge_and_unload() if isinstance(model, PeftModel) else model
    plain.save_pretrained(folder)
    vocabulary.save(folder)


def load_backbone(
    folder: Path, expected: Vocabulary | None = None, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, Vocabulary]:
    """Read what `save_backbone` wrote, onto the device of the process (its own GPU where there is one).

    `dtype`: of the weights; what learns needs float32. Raises DataError for weights that are truncated, missing or not
    finite, and for a vocabulary other than `expected` or than the weights'.
    """
    vocabulary = Vocabulary.load(folder)
    if expected is not None and expected.fingerprint != vocabulary.fingerprint:
        raise DataError(
            "the checkpoint has another vocabulary",
            where=str(folder),
            why=f"it has {len(vocabulary)} tokens, expected are {len(expected)}, or their ids differ",
            do="use the checkpoint that was trained with these semantic ids",
        )
    model = _from_folder(folder, dtype)
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(vocabulary):
        raise DataError(f"{rows} embedding rows for {len(vocabulary)} tokens", where=str(folder), do="train it again")
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise DataError("the checkpoint has weights that are not finite", where=str(folder), do="train it again")
    return model.to(accelerator().device), vocabulary


def _from_folder(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            "the checkpoint has no safetensors file", where=str(folder), do="give a local checkpoint folder"
        )
    for file in files:
        _check_safetensors(file)
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise DataError(
            "a weights file is truncated or broken", where=str(file), why=str(error), do="copy or train it again"
        ) from error
