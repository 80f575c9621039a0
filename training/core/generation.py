"""Text that a model writes: answers to prompts, drawn or greedy, under a grammar where one is given.

The prompt is read once and its cache is shared by all answers to it: they are queries of one forward pass under a tree
mask, as the beams of `decoding` are. The cache grows by many tokens at a time, prompts whose answers have all ended
leave the batch, and after the prompts models of the Llama family take a shorter way than that of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from training.core.choice import Choice
from training.core.decoding import REQUESTS_AT_ONCE, check_room, left_padded
from training.core.decoding_step import DecodingStep, suits
from training.core.heads import log_probs_of
from training.core.hidden import last_layer_at
from training.core.kept import Kept
from training.core.masks import attention_mask
from training.core.precision import inference, laid_out
from training.core.sequences import Tokens

_LEAVE_SHARE = 0.25
"""Finished prompts leave once they are this share of the batch: each time the cache of the others is copied."""

_Decoder = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    *,
    max_tokens: int,
    ends: Collection[int],
    choice: Choice,
    responses: int = 1,
    seed: tuple[int, ...] = (0,),
    batch_size: int = REQUESTS_AT_ONCE,
) -> list[list[Tokens]]:
    """`responses` answers to each prompt, in their order, each until one of the `ends` (it is kept) or `max_tokens`.

    Each prompt draws from numbers of its own, by its place: batches do not change what is drawn. DataError for an empty
    prompt, one without room for an answer, and where the grammar allows nothing.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    written: dict[int, list[Tokens]] = {}
    with inference(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            numbers = [np.random.default_rng((*seed, row)).random((responses, max_tokens)) for row in rows]
            answers = write(model, [prompts[row] for row in rows], torch.from_numpy(np.stack(numbers)), ends, choice)
            written |= dict(zip(rows, answers, strict=True))
    return [written[row] for row in range(len(prompts))]


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    draws: Tensor,
    ends: Collection[int],
    choice: Choice,
    told: Tensor | None = None,
) -> list[list[Tokens]]:
    """Answers to one batch of prompts: the t-th token of answer g to prompt b comes of `draws` [B, G, T], from [0, 1).

    To `told` [B, G], where it is given, the log-prob of each answer is added, at the temperature of the choice and
    before its cuts. Raises as `generate` does.
    """
    _, responses, most = draws.shape
    check_room(model, prompts, responses, most - 1)
    head, draws = model.get_output_embeddings(), draws.to(model.device)
    batch = _Batch.start(model, prompts, responses, most)
    written = torch.zeros(draws.shape, dtype=torch.int64, device=model.device)
    lengths, is_end = torch.full_like(written[..., 0], most), written.new_tensor(sorted(ends))
    known = suits(model)
    with laid_out(head if known else model):
        hidden = batch.read_prompts()
        decoder = DecodingStep(model) if known and most > 1 else partial(_by_transformers, model)
        for step in range(most):
            rows, answers = batch.open_answers
            tokens = choice.tokens(head, hidden, draws[rows, answers, step], written[rows, answers, :step])
            written[rows, answers, step] = tokens
            if told is not None:
                told[rows, answers] += log_probs_of(head, hidden, tokens[:, None], choice.temperature)[:, 0]
            ended = torch.isin(tokens, is_end)
            lengths[rows[ended], answers[ended]] = step + 1
            batch.close(ended)
            if batch.done or step + 1 == most:
                break
            hidden = batch.read(decoder, written[..., step], step)
    pairs = zip(written.tolist(), lengths.tolist(), strict=True)
    return [[tuple(row[:n]) for row, n in zip(answers, counts, strict=True)] for answers, counts in pairs]


def _by_transformers(model: PreTrainedModel, ids: Tensor, seen: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """As `DecodingStep` does it, for any architecture."""
    output = model.get_decoder()(
        input_ids=ids,
        attention_mask=attention_mask(seen, model),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


@dataclass
class _Batch:
    """The prompts that are still answered: their numbers `prompt` [b], ids [b, P], which of these are `real`, and which
    answers are `open` [b, G]. `owner` [b, S] says whose answer's token is in a place of the cache, -1 for nobody's.
    """

    model: PreTrainedModel
    cache: Cache
    prompt: Tensor
    ids: Tensor
    real: Tensor
    open: Tensor
    owner: Tensor

    @classmethod
    def start(cls, model: PreTrainedModel, prompts: Sequence[Tokens], responses: int, most: int) -> _Batch:
        ids, real = left_padded(prompts, model.device)
        number = torch.arange(len(ids), device=ids.device)
        return cls(
            model,
            Cache(layers=[Kept() for _ in range(model.config.num_hidden_layers)]),
            number,
            ids,
            real,
            torch.ones(len(ids), responses, dtype=torch.bool, device=ids.device),
            ids.new_empty(len(ids), 0),
        )

    @property
    def open_answers(self) -> tuple[Tensor, Tensor]:
        """Prompt numbers [n] and answers [n] of what is still written, in the order of `read`."""
        rows, answers = self.open.nonzero(as_tuple=True)
        return self.prompt[rows], answers

    @property
    def done(self) -> bool:
        return not bool(self.open.any())

    def close(self, ended: Tensor) -> None:
        """Of the open answers, those with `ended` [n] are whole."""
        self.open = self.open.masked_scatter(self.open, ~ended)

    def read_prompts(self) -> Tensor:
        """Hidden states [B * G, D] that each answer's first token comes of."""
        ends = torch.arange(1, len(self.ids) + 1, device=self.ids.device) * self.ids.shape[1] - 1
        with last_layer_at(self.model, ends):
            output = self.model.get_decoder()(
                input_ids=self.ids,
                attention_mask=self.real.long(),
                position_ids=(self.real.cumsum(dim=1) - 1).clamp(min=0),
                past_key_values=self.cache,
                use_cache=True,
            )
        hidden: Tensor = output.last_hidden_state[:, -1].repeat_interleave(self.open.shape[1], dim=0)
        return hidden

    def read(self, decoder: _Decoder, newest: Tensor, step: int) -> Tensor:
        """Hidden states [n, D] after the `newest` tokens [B, G] of the open answers, which are their `step`-th ones."""
        self._leave()
        most = int(self.open.sum(dim=1).max())
        answers = self.open.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        asked = self.open.gather(1, answers)
        self.owner = torch.cat([self.owner, torch.where(asked, answers, -1)], dim=1)
        own = asked[:, :, None] & (self.owner[:, None, :] == answers[:, :, None])
        seen = torch.cat([self.real[:, None].expand(-1, most, -1), own], dim=2)
        positions = (self.real.sum(dim=1, keepdim=True) + step).expand_as(answers)
        return decoder(newest[self.prompt].gather(1, answers), seen, positions, self.cache)[asked]

    def _leave(self) -> None:
        going = self.open.any(dim=1)
        if int(going.sum()) <= (1 - _LEAVE_SHARE) * len(going):
            rows = going.nonzero()[:, 0]
            for layer in self.cache.layers:
                layer.keep(rows)
            for name in ("prompt", "ids", "real", "open", "owner"):
                setattr(self, name, getattr(self, name)[rows])
