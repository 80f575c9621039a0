"""Chat prompts, and the tokens of a piece of text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.language_kit import END, llama_tokenizer
from training.core.errors import DataError
from training.core.texts import chat_prompt, pieces, token_spans
from training.core.tokens import train_text_tokenizer

TOKENIZER = llama_tokenizer()


def test_a_chat_prompt_is_the_tokenizers_own_template_up_to_the_answer() -> None:
    prompt = chat_prompt(TOKENIZER, [{"role": "user", "content": "a red pen"}])
    assert TOKENIZER.decode(prompt) == "<|im_start|>user\na red pen<|im_end|>\n<|im_start|>assistant\n"
    assert prompt[0] == 1 and prompt.count(2) == 1  # special tokens are tokens, not their letters


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(DataError, match="no chat template"):
        chat_prompt(train_text_tokenizer(["pen"], 270), [{"role": "user", "content": "pen"}])


def test_a_label_is_one_token_with_its_blank_and_the_prompt_ends_without_one() -> None:
    assert len(TOKENIZER.encode(" high")) == len(TOKENIZER.encode(" low")) == 1 < len(TOKENIZER.encode("low"))
    whole, prompt = TOKENIZER.encode("the level is: high"), TOKENIZER.encode("the level is:")
    assert whole == [*prompt, *TOKENIZER.encode(" high")]
    assert whole != TOKENIZER.encode("the level is: ") + TOKENIZER.encode("high")


def test_each_slot_has_the_tokens_of_its_word_blank_included() -> None:
    text = "level: high; brand: red pen"
    tokens = [*TOKENIZER.encode(text), TOKENIZER.eos_token_id]
    bounds = [(text.index(word), text.index(word) + len(word)) for word in ("high", "red pen")]
    owners = pieces(token_spans(TOKENIZER, tokens), text, bounds)
    of = [[token for token, owner in zip(tokens, owners, strict=True) if owner == n] for n in range(2)]
    assert [TOKENIZER.decode(slot) for slot in of] == [" high", " red pen"]
    assert owners[-1] is None and TOKENIZER.decode(tokens[-1:]) == END


@given(text=st.text(max_size=20), letters=st.booleans())
def test_the_spans_of_the_tokens_are_the_text_end_to_end(text: str, letters: bool) -> None:
    tokens = TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)
    if letters:  # as a model may write it: one byte a token
        alphabet = [TOKENIZER.convert_ids_to_tokens(token) for token in tokens]
        tokens = [TOKENIZER.convert_tokens_to_ids(sign) for word in alphabet for sign in word]
    spans = token_spans(TOKENIZER, tokens)
    if "\ufffd" not in text:
        assert "".join(text[start:end] for start, end in spans) == text
        assert all(end == start for (_, end), (start, _) in pairwise(spans))
    assert pieces(spans, text, [(0, max(1, len(text)))]) == [0 if start < end else None for start, end in spans]
