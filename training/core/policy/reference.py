"""The reference: the policy as it stands when a stage begins. The next stage begins where this one ends: it moves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from peft import PeftModel
from transformers import PreTrainedModel

from training.core.policy.surrogate import Episode
from training.core.sequences import by_tree, passes, token_log_probs


class Reference:
    """Made before the first step. A model with adapters is its own reference without them; others are copied once.

    Adapters must be fresh then: their stage starts from merged weights.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._adapted = model if isinstance(model, PeftModel) else None
        self._model = model if self._adapted else copy.deepcopy(model).requires_grad_(False)

    def score(self, episodes: Sequence[Episode], pad: int, row_tokens: int, temperature: float) -> list[Episode]:
        """The episodes with the reference's log-probs of their tokens."""
        known = list(episodes)
        with self._adapted.disable_adapter() if self._adapted else nullcontext():
            for numbers, batch, logits in passes(self._model, [e.tree for e in episodes], pad, row_tokens):
                log_probs = by_tree(token_log_probs(logits / temperature, batch), batch)
                for number, values in zip(numbers, log_probs, strict=True):
                    known[number] = replace(episodes[number], reference=values)
        return known
