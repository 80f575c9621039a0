"""Templates: a prompt and a response with slots for codes and for text, turned into token ids.

Text from outside (titles, profiles) stands between two fence tokens that no text can spell (`Vocabulary.encode_text`),
so what a customer or a supplier wrote cannot pass for an instruction or for a code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from common.config import read_yaml
from training.core.errors import DataError
from training.core.packing import Sample
from training.core.tokens import Vocabulary

FENCES = ("<text>", "</text>")
_TEXTS = 1 << 17  # how many encoded texts are kept: tens of megabytes
_SLOT = re.compile(r"\{(\w+)\}")

Codes = tuple[int, ...]
Bindings = Mapping[str, Codes | str]


@dataclass(frozen=True)
class Template:
    """One way to put a task. `prompt` and `response` alternate literal text and slot names: text at even places."""

    prompt: tuple[str, ...]
    response: tuple[str, ...]

    @classmethod
    def parse(cls, prompt: str, response: str) -> Template:
        """Split both sides at their slots."""
        return cls(tuple(_SLOT.split(prompt)), tuple(_SLOT.split(response)))

    @property
    def slots(self) -> frozenset[str]:
        """The slots of both sides."""
        return frozenset((*self.prompt[1::2], *self.response[1::2]))


def load_templates(path: Path, slots: Collection[str]) -> Mapping[str, tuple[Template, ...]]:
    """The templates of every task in a file, by its name; DataError for one with a slot that is none of `slots`."""
    raw = read_yaml(path)
    templates = {task: tuple(Template.parse(**one) for one in found) for task, found in raw.items()}
    for task, template in ((task, one) for task, found in templates.items() for one in found):
        if unknown := template.slots.difference(slots):
            raise DataError(
                f"a template has the unknown slot {{{min(unknown)}}}",
                where=f"{task} in {path}",
                do=f"use {', '.join(sorted(slots))}",
            )
    return templates


@dataclass(frozen=True)
class Writer:
    """Turns bound templates into samples; a text is cut to `text_tokens` tokens."""

    vocabulary: Vocabulary
    text_tokens: int = 32

    def sample(self, template: Template, bindings: Bindings) -> Sample:
        """The sample of a template whose slots are all bound. A response that ends in text ends with the end token."""
        response = self.part(template.response, bindings)
        ends = template.response[-1] == "" and not isinstance(bindings[template.response[-2]], str)
        end = () if ends else (self.vocabulary.tokenizer.eos_token_id,)
        return Sample(self.prompt(template, bindings), (*response, *end))

    def prompt(self, template: Template, bindings: Bindings) -> Codes:
        """The token ids of the prompt alone, the begin token first."""
        return (self.vocabulary.tokenizer.bos_token_id, *self.part(template.prompt, bindings))

    def part(self, side: tuple[str, ...], bindings: Bindings) -> Codes:
        """The token ids of one side of a template, for a prompt that is made of several."""
        tokens: list[int] = []
        for place, part in enumerate(side):
            if place % 2 == 0:
                tokens += self._encode(part, None) if part else ()
                continue
            value = bindings[part]
            if isinstance(value, str):
                start, end = (self.vocabulary.token(fence) for fence in FENCES)
                tokens += (start, *self._encode(value, self.text_tokens), end)
            else:
                tokens += value
        return tuple(tokens)

    @cached_property
    def _encode(self) -> Callable[[str, int | None], Codes]:
        """At most so many tokens of a text. Literals come again in every sample, texts in every epoch."""
        return lru_cache(_TEXTS)(lambda text, tokens: tuple(self.vocabulary.encode_text(text)[:tokens]))
