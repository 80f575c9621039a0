"""The hint ranker's network: texts as bags of words and pieces, attention on the query over what a person did, crosses.

    b_i  = bag(content_i) + kind_i + age_i
    u    = sum_i softmax(a(q, b_i, q * b_i))_i b_i              attention on the target (DIN, arXiv 1706.06978)
    x_0  = [q, u, q * u, numbers, what is unknown of them]
    x_l+1 = x_0 * (W_l x_l + b_l) + x_l                         crosses (DCN-v2, arXiv 2008.13535), beside a dense part
    logit = w [x_L, dense(x_0)] + linear(numbers, place, q)     wide and deep (arXiv 1606.07792)

Numbers are quantiles of the training part (`Quantiles`). The linear part is fitted to its optimum (`hint_linear`) and
not learnt by steps; w begins at zero, so the network begins where the linear part ends and learns what that leaves. In
it the place adds, so that it can be held fixed (PAL).

To all behaviours is added a nothing, so who did nothing, or nothing near, has an interest of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.query_rec.hashed_text import Hashed, Ints
from training.query_rec.hint_linear import PLACES, Linear
from training.query_rec.hint_questions import AGES, KINDS, KNOTS, NAMES, OF_QUERY, OF_USER, Floats, Quantiles, Questions


@dataclass(frozen=True)
class NetworkConfig:
    """`buckets` of words and pieces, `width` of their vectors; the last `length` behaviours are read."""

    width: int = 16
    buckets: int = 65536
    length: int = 20
    attention: int = 16
    crosses: int = 2
    dense: tuple[int, ...] = (64, 32)
    dropout: float = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """Questions as tensors; see `Questions`. The texts' numbers lie one after the other, from `starts` on."""

    texts: Tensor
    starts: Tensor
    contents: Tensor
    kinds: Tensor
    ages: Tensor
    person: Tensor
    query: Tensor
    place: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, questions: Questions, quantiles: Quantiles, device: torch.device) -> Batch:
        """With the texts that the questions have, and no others, and the quantiles of their numbers."""
        used, places = np.unique(np.concatenate([questions.query, questions.contents.ravel()]), return_inverse=True)
        nothing = int(used[0] == -1) if len(used) else 0
        hashed: Hashed = questions.texts.hashed.chosen(used[nothing:])
        places = places - nothing  # nothing is -1 still
        query, contents = places[: len(questions)], places[len(questions) :].reshape(questions.contents.shape)
        arrays: tuple[Ints | Floats, ...] = (
            *(hashed.numbers, hashed.starts, contents, questions.kinds, questions.ages),
            *(questions.person, query, questions.place, quantiles(questions.numbers)),
        )
        return cls(*(torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in arrays))


class Network(nn.Module):
    """See the module; `edges` and `ranks` are the quantiles of the training part."""

    edges: Tensor
    ranks: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.bag = nn.EmbeddingBag(config.buckets, width, mode="mean", include_last_offset=True)
        self.kind, self.age = nn.Embedding(len(KINDS), width), nn.Embedding(AGES, width)
        # One layer over [q, b, q * b], in its parts: what is of the query or the behaviour alone is worked out once.
        self.asked = nn.Linear(width, config.attention)
        self.did, self.both = (nn.Linear(width, config.attention, bias=False) for _ in range(2))
        self.weight = nn.Linear(config.attention, 1)
        size = 3 * width + 2 * len(NAMES)
        self.input = nn.Dropout(config.dropout)
        self.crosses = nn.ModuleList(nn.Linear(size, size) for _ in range(config.crosses))
        sizes = (size, *config.dense)
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(config.dropout)) for a, b in pairwise(sizes)]
        self.dense = nn.Sequential(*layers)
        self.out = nn.Linear(size + sizes[-1], 1, bias=False)
        self.numbers, self.place = nn.Linear(2 * len(NAMES), 1), nn.Embedding(PLACES, 1)
        self.wide = nn.EmbeddingBag(config.buckets, 1, mode="mean", include_last_offset=True)
        for name in ("edges", "ranks"):
            self.register_buffer(name, torch.zeros(len(NAMES), KNOTS))
        for small in (self.kind, self.age):
            nn.init.normal_(small.weight, std=0.01)
        for zero in (self.out.weight, *self.numbers.parameters(), self.place.weight, self.wide.weight):
            nn.init.zeros_(zero)

    @property
    def quantiles(self) -> Quantiles:
        """What a batch is made with."""
        return Quantiles(self.edges.cpu().numpy(), self.ranks.cpu().numpy())

    def measure(self, numbers: Floats) -> None:
        """Take the quantiles of the numbers [n, NAMES]."""
        for held, value in zip((self.edges, self.ranks), Quantiles.of(numbers), strict=True):
            held.copy_(torch.from_numpy(value))

    def begin(self, linear: Linear) -> None:
        """Be this linear part and nothing more, whatever the rest has learnt."""
        fitted = (
            *((self.numbers.weight, linear.numbers), (self.numbers.bias, np.array([linear.bias], dtype=np.float32))),
            *((self.place.weight, linear.places), (self.wide.weight, linear.words)),
        )
        with torch.no_grad():
            for held, value in fitted:
                held.copy_(torch.from_numpy(value).reshape(held.shape))
            self.out.weight.zero_()

    def forward(self, batch: Batch, hidden: Tensor | None = None) -> Tensor:
        """Logits [n]. `hidden` [n, NAMES]: numbers that are not told, as of a query or a person that nobody knows."""
        texts = functional.normalize(self.bag(batch.texts, batch.starts), dim=1)
        query = functional.embedding(batch.query, texts)
        interest = self._interest(texts, query, batch)
        unknown = batch.numbers.isnan() if hidden is None else batch.numbers.isnan() | hidden
        numbers = torch.cat([batch.numbers.masked_fill(unknown, 0.0), unknown.to(batch.numbers.dtype)], dim=1)
        x0 = self.input(torch.cat([query, interest, query * interest, numbers], dim=1))
        x = x0
        for cross in self.crosses:
            x = x0 * cross(x) + x
        logit = self.out(torch.cat([x, self.dense(x0)], dim=1)) + self._linear(batch, numbers)
        return torch.as_tensor(logit.squeeze(1))

    @torch.no_grad()
    def _linear(self, batch: Batch, numbers: Tensor) -> Tensor:
        words = functional.embedding(batch.query, self.wide(batch.texts, batch.starts))
        place = self.place((batch.place - 1).clamp(0, PLACES - 1))
        return torch.as_tensor(self.numbers(numbers) + words + place)

    def _interest(self, texts: Tensor, query: Tensor, batch: Batch) -> Tensor:
        words = functional.embedding(batch.contents.clamp(min=0), texts)
        did = words + self.kind(batch.kinds.clamp(min=0)) + self.age(batch.ages.clamp(min=0))
        own, mask = did.index_select(0, batch.person), (batch.contents >= 0)[batch.person]
        parts = self.did(did).index_select(0, batch.person) + self.both(query.unsqueeze(1) * own)
        weight = self.weight(functional.relu(parts + self.asked(query).unsqueeze(1))).squeeze(2)
        nothing = weight.new_zeros(len(weight), 1)
        share = torch.cat([nothing, weight.masked_fill(~mask, -torch.inf)], dim=1).softmax(dim=1)[:, 1:]
        return torch.as_tensor((share.unsqueeze(2) * own).sum(dim=1))


def hiding(rows: int, share: float, source: torch.Generator) -> Tensor:
    """Of a `share` of pairs all that the store says of the query, and of as many others of the person: [rows, NAMES].

    So a query of which nothing is known is one that the network has met.
    """
    of_query = [place for place, name in enumerate(NAMES) if name in OF_QUERY or name.startswith("click_share")]
    of_user = [place for place, name in enumerate(NAMES) if name in OF_USER]
    found = torch.zeros(rows, len(NAMES), dtype=torch.bool)
    for columns in (of_query, of_user):
        found[:, columns] = (torch.rand(rows, generator=source) < share).unsqueeze(1)
    return found
