"""What a policy is asked while it is aligned, and how well it answers: shared by the preference and policy stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers import PreTrainedModel

from training.core.decoding import beam_search, legal_share
from training.core.device import in_shares
from training.core.errors import LeftOut
from training.core.metrics import Floats, Interval, ndcg_at, paired_difference
from training.core.prompts import Codes
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.samples import NextItem

JUDGED_AT = 10
JUDGED_BEAMS = 2 * JUDGED_AT


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
    Raises LeftOut where there is none.
    """
    if not samples:
        raise LeftOut(
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

    def gains(self) -> Floats:
        """NDCG@10 of each question under the trie: [questions]."""
        return ndcg_at(np.array(in_shares(self._ranks, self.questions)), JUDGED_AT)

    def ndcg(self) -> float:
        """Their mean."""
        return float(self.gains().mean())

    def _ranks(self, questions: Sequence[Question]) -> list[float]:
        found = beam_search(self.model.eval(), self.items.trie, [one.prompt for one in questions], JUDGED_BEAMS)
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
    """A test of non-inferiority: NDCG@10 may not have lost more than the share `max_loss`, with 95 % confidence.

    The same questions are asked before and after, and the one-sided lower bound of the mean difference is a bootstrap's
    over users. It is held against what the stage started from and against the foot of its ladder, the model before
    the first rung: losses that each are small enough would add up. `legal`: the least share of questions that are
    answered with an item without the trie, greedily. Both INFERRED; judged on at most `samples` validation samples.
    """

    max_loss: float = 0.05
    legal: float = 0.95
    samples: int = 2000

    def hold(self, judge: Judge, seed: int, *, before: Floats, foot: Floats) -> Verdict:
        """Judge the policy as it is now against its gains `before` the stage and those of the `foot`: [questions] each.

        The seed is the bootstrap's.
        """
        after, legal = judge.gains(), judge.legal()
        users = [one.user_id for one in judge.questions]
        change, whole = (_change(after, start, users, seed) for start in (before, foot))
        reasons = self._too_much(change, before, after, "")
        if not np.array_equal(before, foot):
            reasons += self._too_much(whole, foot, after, " from the foot of the ladder")
        if not legal >= self.legal:
            reasons.append(f"{legal:.1%} of the answers without the trie are items, fewer than {self.legal:.0%}")
        first, start, end = (float(gains.mean()) for gains in (foot, before, after))
        return Verdict(first, start, end, change.value, change.lo, legal, "; ".join(reasons))

    def _too_much(self, change: Interval, start: Floats, after: Floats, whence: str) -> list[str]:
        if change.lo >= -self.max_loss * start.mean():  # a NaN is too much
            return []
        figures = f"{start.mean():.4f} to {after.mean():.4f}, at worst {change.lo / start.mean():.1%} (95%)"
        return [f"NDCG@10{whence} {figures}, more than {self.max_loss:.0%} allowed"]


def _change(after: Floats, before: Floats, users: Sequence[str], seed: int) -> Interval:
    """The lower end of a two-sided 90 % interval is the one-sided 95 % bound."""
    return paired_difference(after[:, None], before[:, None], users, seed=seed, level=0.9)[0]


@dataclass(frozen=True)
class Verdict:
    """What a gate saw; `reason` is empty where the stage stands.

    `ndcg_foot`: of the model before the first rung. `ndcg_difference`: after minus before; `ndcg_difference_lo`: its
    one-sided 95 % lower bound.
    """

    ndcg_foot: float
    ndcg_before: float
    ndcg_after: float
    ndcg_difference: float
    ndcg_difference_lo: float
    legal: float
    reason: str

    @property
    def stands(self) -> bool:
        """Whether the stage's model goes on; else the one that it started from does."""
        return not self.reason

    def record(self) -> dict[str, float | str]:
        """The figures as the table of stage gates has them, for `gate.json`."""
        return {
            "reason": self.reason,
            "metric": f"ndcg@{JUDGED_AT}",
            "start": self.ndcg_foot,
            "before": self.ndcg_before,
            "after": self.ndcg_after,
            "lower": self.ndcg_difference_lo,
            "legal": self.legal,
        }

    def metrics(self) -> dict[str, float]:
        """The figures, for the stage's result."""
        values = {name: value for name, value in asdict(self).items() if name != "reason"}
        return {"stands": float(self.stands), **values}
