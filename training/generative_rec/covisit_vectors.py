"""Item vectors by counting: the singular vectors of how much more often than by chance two items stand together.

    M(a, b) = max(0, log(c(a, b) S / (c(a) c(b)^0.75))),  S = sum over b of c(b)^0.75,  M ~ U S V',  e_a = U_a sqrt(S)

Positive pointwise mutual information with a smoothed context and symmetric singular values (Levy, Goldberg and Dagan
2015, TACL 3). c(a, b) counts co-visits of the training part (`Interactions.covisits`).

They are counted both ways, also where the order of the items matters: the encoder has one row for an item, which stands
for it in a history and as a candidate. Counts of one way have two unlike vectors for it, U of what was left and V of
what was come to; on Beauty, where the order matters, either alone or a half of each finds fewer next items
(docs/LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.generative_rec.interactions import Interactions

_SMOOTHING, _ROUNDS = 0.75, 6


def covisit_vectors(known: Interactions, width: int) -> Tensor:
    """[items, width], with a mean length of 1 over the items that are co-visited; the others' are 0.

    A catalogue of fewer items than `width` leaves the last components 0. Draws from torch's global random numbers.
    """
    size = len(known.item_ids)
    keys, counts = known.covisits()
    apart = keys // size != keys % size
    pairs = torch.stack([keys // size, keys % size])[:, apart]
    found = torch.zeros(size, width)
    if not pairs.shape[1]:
        return found
    counted = counts[apart].float()
    totals = torch.zeros(size).index_add_(0, pairs[0], counted)
    context = totals**_SMOOTHING
    excess = counted * context.sum() / (totals[pairs[0]] * context[pairs[1]])
    matrix = torch.sparse_coo_tensor(pairs, excess.log().clamp(min=0), (size, size), check_invariants=True)
    vectors, values, _ = torch.svd_lowrank(matrix, q=min(2 * width, size), niter=_ROUNDS)
    kept = min(width, size)
    found[:, :kept] = (vectors * values.sqrt())[:, :kept]
    found[totals == 0] = 0.0
    lengths = found.norm(dim=1)
    return found / lengths[lengths > 0].mean() if bool((lengths > 0).any()) else found
