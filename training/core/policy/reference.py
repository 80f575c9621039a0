"""The reference: the policy as it stands when a stage begins. The next stage begins where this one ends: it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from training.core.policy.surrogate import Episode
from training.core.sequences import by_tree, passes, token_log_probs
from training.core.shards import lent


class Reference:
    """A copy of those `weights` of `model` that learn, before the first step; in shards where they are in shards."""

    def __init__(self, model: PreTrainedModel, weights: Sequence[Tensor]) -> None:
        self._model = model
        self._weights = [weight.detach().clone() if weight.requires_grad else weight for weight in weights]

    def score(self, episodes: Sequence[Episode], pad: int, row_tokens: int, temperature: float) -> list[Episode]:
        """The episodes with the reference's log-probs of their tokens; every process must ask."""
        known = list(episodes)
        with lent(self._model, self._weights):
            for numbers, batch, logits in passes(self._model, [e.tree for e in episodes], pad, row_tokens):
                log_probs = by_tree(token_log_probs(logits / temperature, batch), batch)
                for number, values in zip(numbers, log_probs, strict=True):
                    known[number] = replace(episodes[number], reference=values)
        return known
