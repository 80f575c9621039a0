"""A two-layer Qwen3 whose logits are far from flat, and what the tests that compare with TRL share."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM


def tiny_qwen(seed: int) -> PreTrainedModel:
    """A vocabulary of 32 tokens: 0 is the pad, 2 the end."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            initializer_range=0.3,
            pad_token_id=0,
            eos_token_id=2,
        )
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """What a trainer of TRL asks for; its batches are made from token ids here."""
    words = {"<pad>": 0, "<unk>": 1, "<end>": 2, **{letter: 3 + n for n, letter in enumerate("abcdefgh")}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def gradients(model: PreTrainedModel) -> Tensor:
    """All gradients of a model in one row."""
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def relative_gap(one: Tensor, other: Tensor) -> float:
    """The length of the difference, as a share of the length of `other`."""
    return float((one - other).norm() / other.norm())
