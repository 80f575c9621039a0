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

from training.core.decoding import check_room
from training.core.heads import log_probs_of
from training.core.precision import inference
from training.core.prefixes import Prefixes
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
    head, device = model.get_output_embeddings(), model.device
    counts = [len(tree.responses) for tree in trees]
    read = Prefixes.read(model, [tree.prompt for tree in trees])
    first = [torch.tensor([response[0] for response in tree.responses], device=device) for tree in trees]
    begun = log_probs_of(head, read.last, pad_sequence(first, batch_first=True))
    sums = torch.cat([row[:count] for row, count in zip(begun, counts, strict=True)])
    rest = [torch.tensor(response, device=device) for tree in trees for response in tree.responses]
    tokens = pad_sequence(rest, batch_first=True, padding_value=-1)
    if (width := tokens.shape[1] - 1) > 0:
        of = torch.arange(len(trees), device=device).repeat_interleave(torch.tensor(counts, device=device))
        earlier = torch.ones(width, width, dtype=torch.bool, device=device).tril().expand(len(of), -1, -1)
        depth = torch.arange(width, device=device).expand(len(of), -1)
        wanted = tokens[:, 1:] >= 0
        hidden = read.after(of, tokens[:, :-1].clamp(min=0), earlier, depth, wanted)
        values = log_probs_of(head, hidden, tokens[:, 1:][wanted][:, None])[:, 0]
        sums = sums + values.new_zeros(wanted.shape).masked_scatter(wanted, values).sum(dim=1)
    return list(torch.split(sums.float().cpu(), counts))
