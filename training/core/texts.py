"""Between texts and tokens: chat prompts, and which tokens of an answer belong to which piece of its text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from training.core.errors import DataError
from training.core.sequences import Tokens

Span = tuple[int, int]
"""Characters `[start, end)` of a text."""


def chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> Tokens:
    """The `messages` (`role`, `content`) in the tokenizer's own template, up to where the assistant's answer begins.

    DataError where the tokenizer has no template.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template",
            where=str(tokenizer.name_or_path),
            do="use a model that was trained on chats, or a plain prompt",
        )
    prompt = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    return tuple(tokenizer.encode(prompt, add_special_tokens=False))


def token_spans(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[Span]:
    """The characters of each of the `tokens` in their decoded text, special tokens left out of it.

    They may be tokens that the tokenizer would not have chosen for that text, as a model may write them. Of a character
    that is spread over several tokens the last one has it; the others, and special tokens, have an empty span.
    """
    spans, start = [], 0
    for count in range(1, len(tokens) + 1):
        # A part of a character decodes to the sign for a broken one.
        end = len(tokenizer.decode(tokens[:count], skip_special_tokens=True).rstrip("\ufffd"))
        spans.append((min(start, end), end))
        start = end
    return spans


def pieces(spans: Sequence[Span], text: str, bounds: Sequence[Span]) -> list[int | None]:
    """Which of the pieces with these `bounds`, ascending and apart, each token belongs to; None: to no piece.

    A token belongs to the piece of its first character that is not a blank: " high" to the slot that begins at "high".
    A token without characters, such as an end token, belongs to none.
    """
    starts = [start for start, _ in bounds]
    found: list[int | None] = []
    for start, end in spans:
        place = start + len(text[start:end]) - len(text[start:end].lstrip())
        piece = bisect_right(starts, min(place, end - 1)) - 1
        found.append(piece if start < end and piece >= 0 and min(place, end - 1) < bounds[piece][1] else None)
    return found
