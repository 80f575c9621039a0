"""A small Llama with the traps of a real one: tied head, pad that is the end token, a first token of huge norm."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

UNKNOWN, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEXTS = ["the level is: high", "the level is: low", "a blue pen; a red pen", "in one word, the customer wants to"] * 3
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def llama_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE in which " high" and " low" are one token each, with the blank; a copy: a test may add to it."""
    return deepcopy(_trained())


@cache
def _trained() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[UNKNOWN, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        chat_template=TEMPLATE,
    )


def tiny_llama(seed: int = 0, *, sink: bool = False) -> PreTrainedModel:
    """Three layers, grouped heads. `sink`: the start token has a norm of hundreds, as the first token of a real one."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(llama_tokenizer()),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    if sink:
        with torch.no_grad():
            model.get_input_embeddings().weight[1] *= 300
    return model


def saved_llama(folder: Path, seed: int = 0) -> Path:
    """The model and its tokenizer as a local Hugging Face folder."""
    tiny_llama(seed).save_pretrained(folder)
    llama_tokenizer().save_pretrained(folder)
    return folder
