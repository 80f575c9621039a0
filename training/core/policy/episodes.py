"""From rewarded groups to what an update reads: trees of responses, with advantages and log-probs token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.policy.groups import Group
from training.core.policy.surrogate import Episode
from training.core.sequences import Tokens, Tree, by_tree, passes, token_entropies, token_log_probs


def drafts(group: Group, advantage: Tensor, row_tokens: int) -> list[Episode]:
    """The episodes of a group with `advantage` [G] or [G, T], each at most `row_tokens` long if that can be.

    Responses to the same prompt share it. `reference` and `uncertain` are 0 until they are known. DataError for an
    advantage by token that is shorter than its response.
    """
    episodes = []
    for numbers in _trees(group, row_tokens):
        responses = [group.responses[number] for number in numbers]
        gains, behaviour = list[Tensor](), list[Tensor]()
        for number, response in zip(numbers, responses, strict=True):
            gain, size = advantage[number].float(), len(response.tokens)
            if gain.ndim and len(gain) < size:
                raise DataError(
                    f"{len(gain)} advantages for {size} tokens", do="give one per response, or one per token"
                )
            gains.append(gain[:size] if gain.ndim else gain.expand(size))
            unknown = [float("nan")] * size
            behaviour.append(torch.tensor(unknown if response.behaviour is None else response.behaviour))
        old = torch.cat(behaviour)
        tree = Tree(responses[0].prompt, tuple(response.tokens for response in responses))
        episodes.append(Episode(tree, torch.cat(gains), old, torch.zeros_like(old), torch.zeros_like(old)))
    return episodes


def _trees(group: Group, row_tokens: int) -> list[list[int]]:
    """Response numbers by tree: same prompt, and no more of them than fit into a row."""
    trees: list[list[int]] = []
    newest: dict[Tokens, tuple[list[int], int]] = {}
    for number, response in enumerate(group.responses):
        tree, room = newest.get(response.prompt, ([], 0))
        if len(response.tokens) > room:
            tree, room = [], row_tokens - len(response.prompt)
            trees.append(tree)
        tree.append(number)
        newest[response.prompt] = tree, room - len(response.tokens)
    return trees


def with_old(
    model: PreTrainedModel, episodes: Sequence[Episode], pad: int, row_tokens: int, temperature: float
) -> tuple[list[Episode], list[Tensor]]:
    """The episodes with the log-probs under `model` as it is now, where they are unknown; and the entropies [n]."""
    known, entropies = list(episodes), [torch.zeros(0)] * len(episodes)
    for numbers, batch, logits in passes(model, [episode.tree for episode in episodes], pad, row_tokens):
        scaled = logits / temperature
        log_probs = by_tree(token_log_probs(scaled, batch), batch)
        spread = by_tree(token_entropies(scaled, batch), batch)
        for number, now, entropy in zip(numbers, log_probs, spread, strict=True):
            old = episodes[number].old
            known[number] = replace(episodes[number], old=torch.where(old.isnan(), now, old))
            entropies[number] = entropy
    return known, entropies


def mark_uncertain(episodes: Sequence[Episode], entropies: Sequence[Tensor], threshold: float) -> list[Episode]:
    """The episodes with their tokens of an entropy at or above `threshold` marked as uncertain."""
    return [
        replace(episode, uncertain=(entropy >= threshold).float())
        for episode, entropy in zip(episodes, entropies, strict=True)
    ]
