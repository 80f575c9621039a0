"""How probable given texts are after a prompt: labels, grades, candidate answers. The prompt is read once for all.

Logits are made where a token is asked for and nowhere else: a label of one token costs one place, however long its
prompt is. A label of several tokens is scored whole. What `sequences` does in one pass under a tree mask takes two
here, as nothing learns: texts that do not see each other need no mask between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from training.core.decoding import check_room, left_padded
from training.core.heads import log_probs_of
from training.core.hidden import last_layer_at
from training.core.masks import attention_mask
from training.core.precision import inference
from training.core.sequences import Tree

TOKENS_AT_ONCE = 16_384
"""Tokens whose keys and values are in memory at once, those of a prompt once for each of its responses."""


def scores(model: PreTrainedModel, trees: Sequence[Tree], tokens_at_once: int = TOKENS_AT_ONCE) -> list[Tensor]:
    """Of each tree the log-probs [responses], in nats, of its responses after its prompt; float32, on the CPU.

    They are sums over the tokens: divide by the lengths to compare texts of different lengths. Where a tokenizer joins
    a blank to the word behind it, a prompt should end without one and a label begin with one. DataError for a prompt
    and a response that are longer than the model.
    """
    if trees:
        longest = max(len(response) for tree in trees for response in tree.responses)
        check_room(model, [tree.prompt for tree in trees], 1, longest - 1)
    order = sorted(range(len(trees)), key=lambda number: _held(trees[number]))
    found: dict[int, Tensor] = {}
    with inference(model):
        while order:
            count = max(1, tokens_at_once // _held(trees[order[-1]]))  # the largest of what is left
            part, order = order[-count:], order[:-count]
            found |= dict(zip(part, _scores(model, [trees[number] for number in part]), strict=True))
    return [found[number] for number in range(len(trees))]


def _held(tree: Tree) -> int:
    longest = max(map(len, tree.responses))
    return len(tree.prompt) if longest == 1 else len(tree.responses) * (len(tree.prompt) + longest)


def _scores(model: PreTrainedModel, trees: Sequence[Tree]) -> list[Tensor]:
    decoder, head, device = model.get_decoder(), model.get_output_embeddings(), model.device
    counts = [len(tree.responses) for tree in trees]
    ids, real = left_padded([tree.prompt for tree in trees], device)
    with last_layer_at(model, torch.arange(1, len(ids) + 1, device=device) * ids.shape[1] - 1):
        read = decoder(
            input_ids=ids,
            attention_mask=real.long(),
            position_ids=(real.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
        )
    first = [torch.tensor([response[0] for response in tree.responses], device=device) for tree in trees]
    asked = pad_sequence(first, batch_first=True)
    begun = log_probs_of(head, read.last_hidden_state[:, -1], asked)
    sums = torch.cat([row[:count] for row, count in zip(begun, counts, strict=True)])
    rest = [torch.tensor(response, device=device) for tree in trees for response in tree.responses]
    tokens = pad_sequence(rest, batch_first=True, padding_value=-1)
    if (width := tokens.shape[1] - 1) > 0:
        of = torch.arange(len(trees), device=device).repeat_interleave(torch.tensor(counts, device=device))
        read.past_key_values.batch_select_indices(of)
        earlier = torch.ones(width, width, dtype=torch.bool, device=device).tril().expand(len(of), -1, -1)
        wanted = tokens[:, 1:] >= 0
        with last_layer_at(model, wanted.flatten().nonzero()[:, 0]):
            hidden = decoder(
                input_ids=tokens[:, :-1].clamp(min=0),
                attention_mask=attention_mask(torch.cat([real[of, None].expand(-1, width, -1), earlier], 2), model),
                position_ids=real.sum(dim=1)[of, None] + torch.arange(width, device=device),
                past_key_values=read.past_key_values,
                use_cache=True,
            ).last_hidden_state[wanted]
        values = log_probs_of(head, hidden, tokens[:, 1:][wanted][:, None])[:, 0]
        sums = sums + values.new_zeros(wanted.shape).masked_scatter(wanted, values).sum(dim=1)
    return list(torch.split(sums.float().cpu(), counts))
