"""Beam search over a catalogue trie, with the prompt's cache kept once per request and shared by its beams.

The beams of a request are queries of one forward pass under a tree mask (4-D mask and position ids): a beam sees its
prompt, its own ancestors and itself. No cache is copied per beam or reordered when beams fork or end; a beam only
remembers which cache slots hold its ancestors. Items of n tokens need n - 1 steps after the prefill. Candidates are
the children of each beam's trie node, so every result is an item, and the scores are the model's own log-probs (over
the whole vocabulary, not renormalised over the children), as those of `transformers.generate`. On a GPU the model
computes in bf16.

Works with every Hugging Face causal LM whose attention takes a 4-D mask (`sdpa`, `eager`), and with the cache it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.errors import DataError
from training.core.heads import log_probs_of
from training.core.hidden import last_layer_at
from training.core.masks import attention_mask
from training.core.precision import inference
from training.core.trie import NO_ITEM, ROOT, Trie

DEAD = float("-inf")
REQUESTS_AT_ONCE = 64


@dataclass(frozen=True)
class Beams:
    """`items` [B, K] row numbers of the catalogue, best first; `log_probs` [B, K] of their whole token sequences.

    Where the catalogue has fewer than K items the places left over are dead: item `NO_ITEM`, log-prob -inf.
    """

    items: Tensor
    log_probs: Tensor

    @property
    def dead(self) -> int:
        """How many places hold no item."""
        return int((self.items == NO_ITEM).sum())

    def ranks(self, targets: Tensor) -> Tensor:
        """The rank [B], from 1, of each request's target item [B]; 0 where it is not among the beams."""
        hits = self.items == targets.to(self.items.device)[:, None]
        return torch.where(hits.any(dim=1), hits.int().argmax(dim=1) + 1, 0)


@dataclass(frozen=True)
class SubCatalogues:
    """Parts of the catalogue (in stock, fresh, of a category), and the part that each request may choose from.

    `nodes` [S, N] says which trie nodes lead into each part, `part` [B] is the part of each request.
    """

    nodes: Tensor
    part: Tensor

    @classmethod
    def create(cls, trie: Trie, parts: Sequence[Sequence[int]], part: Sequence[int]) -> SubCatalogues:
        """`parts`: the item numbers of each part; `part`: which one a request has. DataError for an empty part."""
        if not all(len(items) for items in parts):
            raise DataError(
                f"part {next(n for n, items in enumerate(parts) if not len(items))} of the catalogue is empty",
                do="give every request at least one item to choose from",
            )
        return cls(torch.stack([trie.reaching(torch.as_tensor(items)) for items in parts]), torch.as_tensor(part))

    def of(self, requests: Sequence[int], device: torch.device) -> SubCatalogues:
        """The same parts for some of the requests."""
        return SubCatalogues(self.nodes.to(device), self.part[list(requests)].to(device))

    def has(self, nodes: Tensor) -> Tensor:
        """Which of the trie nodes [B, U, C] lead into the part of their request."""
        return self.nodes[self.part[:, None, None], nodes]


def beam_search(
    model: PreTrainedModel,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    beams: int,
    batch_size: int = REQUESTS_AT_ONCE,
    within: SubCatalogues | None = None,
) -> Beams:
    """The `beams` best items of each prompt (token ids, any mix of lengths), in the order of the prompts.

    `within` keeps each request in a part of the catalogue; scores stay the model's own log-probs. Requests are batched
    by length. Raises DataError for no prompt, an empty prompt, or one too long for the model.
    """
    check_room(model, prompts, beams, trie.depth - 1)
    trie = trie.to(model.device)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    parts = [None if within is None else within.of(batch, model.device) for batch in batches]
    with inference(model):
        found = [
            _search(model, trie, [prompts[row] for row in batch], beams, part)
            for batch, part in zip(batches, parts, strict=True)
        ]
        place = torch.tensor(order, device=model.device).argsort()
        return Beams(torch.cat([b.items for b in found])[place], torch.cat([b.log_probs for b in found])[place])


def valid_id_rate(
    model: PreTrainedModel, trie: Trie, prompts: Sequence[Sequence[int]], batch_size: int = REQUESTS_AT_ONCE
) -> float:
    """The share of prompts that the model, free to write any token, greedily answers with the tokens of an item.

    Under the trie it is 1 by construction; this says whether the model knows the catalogue by itself.
    """
    check_room(model, prompts, 1, trie.depth - 1)
    trie = trie.to(model.device)
    valid = 0
    with inference(model):
        for start in range(0, len(prompts), batch_size):
            written = _greedy(model, prompts[start : start + batch_size], trie.depth)
            valid += int((trie.items_of(written) != NO_ITEM).sum())
    return valid / len(prompts)


def _greedy(model: PreTrainedModel, prompts: Sequence[Sequence[int]], steps: int) -> Tensor:
    """The most probable next `steps` tokens [B, steps] of each prompt."""
    ids, visible = left_padded(prompts, model.device)
    mask = visible.long()
    written = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=steps, eos_token_id=None
    )
    new: Tensor = written[:, ids.shape[1] :]
    return new


def check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], beams: int, steps: int) -> None:
    """DataError if there is no prompt or an empty one, or if `beams` tails of `steps` tokens do not fit behind one."""
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise DataError("a prompt is empty", do="give every request at least one token")
    if beams < 1:
        raise DataError(f"{beams} beams were asked for", do="ask for at least one")
    config, longest = model.config, max(map(len, prompts))
    if longest + steps > config.max_position_embeddings:
        raise DataError(
            f"a prompt of {longest} tokens and {steps} more are longer than the model",
            why=f"it has {config.max_position_embeddings} positions",
            do="shorten the history",
        )
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if slides and longest + beams * steps >= config.sliding_window:
        raise DataError(
            f"a prompt of {longest} tokens with {beams} beams does not fit into the sliding window",
            why=f"the window is {config.sliding_window}, and all beams share one cache",
            do="shorten the history, or ask for fewer beams",
        )


@dataclass(frozen=True)
class _Frontier:
    """The beams of every request: trie `node` [B, K], `score` [B, K], cache slots of their ancestors `path` [B, K, t].

    Slots count from the end of the prompt.
    """

    node: Tensor
    score: Tensor
    path: Tensor

    def open(self, trie: Trie) -> Tensor:
        """Which beams [B, K] are alive and not yet at an item."""
        return self.score.isfinite() & (trie.item[self.node] == NO_ITEM)


def _search(
    model: PreTrainedModel, trie: Trie, prompts: Sequence[Sequence[int]], beams: int, within: SubCatalogues | None
) -> Beams:
    ids, visible = left_padded(prompts, model.device)
    positions = (visible.cumsum(dim=1) - 1).clamp(min=0)
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    with last_layer_at(model, torch.arange(1, len(ids) + 1, device=ids.device) * ids.shape[1] - 1):
        output = decoder(input_ids=ids, attention_mask=visible.long(), position_ids=positions, use_cache=True)
    hidden = output.last_hidden_state[:, -1:]
    root = torch.full((len(ids), 1), ROOT, device=ids.device)
    front, asked = _Frontier(root, root.float(), root[..., None][..., :0]), torch.zeros_like(root)
    while asked.shape[1]:
        front = _expand(trie, front, asked, partial(log_probs_of, head, hidden.flatten(0, 1)), beams, within)
        asked = _first_true(front.open(trie))
        if asked.shape[1]:
            slots = output.past_key_values.get_seq_length() - ids.shape[1]
            output = decoder(
                # Where a request has fewer open beams than another its places are dead; any token will do there.
                input_ids=trie.token[front.node.gather(1, asked)].clamp(min=0),
                attention_mask=attention_mask(_tree_visible(visible, _paths(front, asked), slots), model),
                position_ids=(positions[:, -1:] + 1 + front.path.shape[2]).expand_as(asked),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            hidden = output.last_hidden_state
            front = _remember(front, asked, slots)
    return _finish(trie, front, beams)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, P] and which of them are real [B, P]; the pad id is any valid one, nothing ever looks at it."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(width, device=device) >= width - lengths[:, None]


def _first_true(flags: Tensor) -> Tensor:
    """Column numbers [B, U] with the true ones of each row first; U is the count of the fullest row."""
    most = int(flags.sum(dim=1).max())
    return flags.int().argsort(dim=1, descending=True, stable=True)[:, :most]


def _paths(front: _Frontier, beams: Tensor) -> Tensor:
    return front.path.gather(1, beams[..., None].expand(-1, -1, front.path.shape[2]))


def _tree_visible(visible: Tensor, paths: Tensor, slots: int) -> Tensor:
    """Which places [B, U, P + slots + U] each of U new beams sees: its prompt, its ancestors and itself."""
    batch, asked, _ = paths.shape
    tree = torch.zeros(batch, asked, slots, dtype=torch.bool, device=paths.device).scatter_(2, paths, True)
    itself = torch.eye(asked, dtype=torch.bool, device=paths.device).expand(batch, -1, -1)
    return torch.cat([visible[:, None].expand(-1, asked, -1), tree, itself], dim=2)


def _remember(front: _Frontier, asked: Tensor, slots: int) -> _Frontier:
    """The asked beams are in the cache now, from slot `slots` on; other beams are at items and never look again."""
    places = torch.arange(slots, slots + asked.shape[1], device=asked.device).expand_as(asked)
    slot = torch.zeros_like(front.node).scatter_(1, asked, places)
    return _Frontier(front.node, front.score, torch.cat([front.path, slot[..., None]], dim=2))


def _expand(
    trie: Trie,
    front: _Frontier,
    asked: Tensor,
    log_probs: Callable[[Tensor], Tensor],
    beams: int,
    within: SubCatalogues | None,
) -> _Frontier:
    """The best `beams` of: beams already at an item, and all trie children of the `asked` beams [B, U].

    `log_probs` gives those [B * U, C] of the tokens [B * U, C] that may follow the asked beams.
    """
    child, real = trie.children(front.node.gather(1, asked))
    real &= front.open(trie).gather(1, asked)[..., None]
    if within is not None:
        real &= within.has(child)
    gain = log_probs(torch.where(real, trie.token[child], 0).flatten(0, 1)).view(child.shape)
    grown = torch.where(real, front.score.gather(1, asked)[..., None] + gain, DEAD)
    kept = torch.where(front.open(trie), DEAD, front.score)
    scores = torch.cat([kept, grown.flatten(1)], dim=1)
    score, pick = scores.topk(min(beams, scores.shape[1]), dim=1)
    own = torch.arange(front.node.shape[1], device=front.node.device).expand_as(front.node)
    parent = torch.cat([own, asked[..., None].expand_as(child).flatten(1)], dim=1).gather(1, pick)
    node = torch.cat([front.node, child.flatten(1)], dim=1).gather(1, pick)
    return _Frontier(node, score, _paths(front, parent))


def _finish(trie: Trie, front: _Frontier, beams: int) -> Beams:
    missing = (0, beams - front.node.shape[1])
    items = torch.where(front.score.isfinite(), trie.item[front.node], NO_ITEM)
    return Beams(
        torch.nn.functional.pad(items, missing, value=NO_ITEM),
        torch.nn.functional.pad(front.score, missing, value=DEAD),
    )
