"""What a policy is asked while it is aligned, and how well it answers: shared by the preference and policy stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers import PreTrainedModel

from training.core.decoding import beam_search, legal_share
from training.core.device import in_shares
from training.core.errors import DataError
from training.core.metrics import ndcg_at
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.prompts import Codes
from training.generative_rec.samples import NextItem

JUDGED_AT = 10


@dataclass(frozen=True)
class Question:
    """What the policy is asked and what the customer took: the prompt, and the row of the item in the catalogue."""

    user_id: str
    prompt: Codes
    item: int


def draw_questions(
    samples: Sequence[NextItem], items: ItemCodes, history: int, limit: int, seed: int
) -> list[Question]:
    """At most `limit` of the samples, drawn with the seed, in their order; each asks with its last `history` items.

    A training sample does not say whose it is: the customer's code is pooled over its answer too.
    Raises DataError where there is none.
    """
    if not samples:
        raise DataError(
            "a part of the split has no samples to ask",
            why="a model is aligned on training samples and judged on validation samples",
            do="move the cut dates of the split, or choose another `protocol`",
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:limit])
    drawn = [samples[n] for n in chosen]
    names = [None if one.part == "train" else one.user_id for one in drawn]
    return [
        Question(one.user_id, items.prompt(one.history, history, name), items.row[one.item_id])
        for one, name in zip(drawn, names, strict=True)
    ]


@dataclass(frozen=True)
class Judge:
    """The policy on validation questions: what it recommends, and what it would write if it were free."""

    model: PreTrainedModel
    items: ItemCodes
    questions: Sequence[Question]

    def ndcg(self) -> float:
        """NDCG@10 under the trie."""
        return float(ndcg_at(np.array(in_shares(self._ranks, self.questions)), JUDGED_AT).mean())

    def _ranks(self, questions: Sequence[Question]) -> list[float]:
        found = beam_search(self.model.eval(), self.items.trie, [one.prompt for one in questions], 2 * JUDGED_AT)
        hits = found.items.cpu().numpy() == np.array([one.item for one in questions])[:, None]
        return list(np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf))

    def legal(self) -> float:
        """The share of questions that are answered with an item without the trie."""
        return float(np.mean(in_shares(self._legal, self.questions)))

    def _legal(self, questions: Sequence[Question]) -> list[float]:
        share = legal_share(self.model.eval(), self.items.trie, [one.prompt for one in questions])
        legal = round(share * len(questions))
        return [1.0] * legal + [0.0] * (len(questions) - legal)


@dataclass(frozen=True)
class Gate:
    """`max_loss`: the share of NDCG@10 that a stage may lose. `legal`: the least share of questions that are answered
    with an item without the trie, greedily. Both INFERRED; judged on at most `samples` validation samples.
    """

    max_loss: float = 0.01
    legal: float = 0.95
    samples: int = 1000

    def hold(self, before: float, judge: Judge) -> Verdict:
        """Judge the policy as it is now against the NDCG@10 `before`."""
        after, legal = judge.ndcg(), judge.legal()
        reasons = []
        if not after >= before * (1 - self.max_loss):  # so that a NaN fails, too
            reasons.append(f"NDCG@10 fell from {before:.4f} to {after:.4f}, by more than {self.max_loss:.0%}")
        if not legal >= self.legal:
            reasons.append(f"{legal:.1%} of the answers without the trie are items, fewer than {self.legal:.0%}")
        return Verdict(before, after, legal, "; ".join(reasons))


@dataclass(frozen=True)
class Verdict:
    """What a gate saw; `reason` is empty where the stage stands."""

    ndcg_before: float
    ndcg_after: float
    legal: float
    reason: str

    @property
    def stands(self) -> bool:
        """Whether the stage's model goes on; else the one that it started from does."""
        return not self.reason

    def metrics(self) -> dict[str, float]:
        """The figures, for the stage's result."""
        values = {name: value for name, value in asdict(self).items() if name != "reason"}
        return {"stands": float(self.stands), **values}
