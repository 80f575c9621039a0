"""Benchmarks of the ranker: lists with reasons for ten thousand users of a generated shop, and of one ten times larger.

There are as many users as items, with twenty events each, 50 items of a kind, popular ones first, and a user keeps to a
few kinds. Nothing of it is real: times and memory mean something, what is recommended does not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np

from training.ranker.bundle import Bundle
from training.ranker.candidates import Depth, candidates
from training.ranker.features import Facts, Table, features
from training.ranker.learner import Labelled, LearnerConfig, Ranker
from training.ranker.signals.base import Ints, Learnt, Questions, listed
from training.ranker.signals.fitting import Chosen, Fitted, SignalsConfig, fit_as_chosen
from training.ranker.signals.sasrec import SASRec
from training.ranker.signals.self_attention import SASRecConfig
from training.ranker.signals.text import tf_idf

_SMALL, _LARGE, _USERS, _LENGTH = 10_000, 100_000, 10_000, 20
_LIMIT_SECONDS, _LIMIT_RATIO = 60.0, 2.0
_PER_KIND, _KINDS, _WORDS = 50, 6, 1000
_SASREC_USERS, _LEARN, _TREES = 2000, 3000, 70
_AT_ONCE, _LISTED = 512, 20
_GIB_IN_KIB = 2**20


def bench_rank() -> dict[str, Any]:
    """Seconds to rank the first 20 of 10 thousand items for each of 10 thousand users, and to say why.

    Bar: 60 s. By part on the clock, with the memory of the process at its peak and how much of it is the ranking's.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), _SMALL, _USERS)
    held = figures["seconds"] <= _LIMIT_SECONDS
    return {"ours": figures["seconds"], "unit": "s", "runs": 1, "origin": "simulated", "within_bars": held, **figures}


def bench_rank_scale() -> dict[str, Any]:
    """How much longer a user takes in a catalogue of 100 thousand items than in one of 10 thousand. Bar: twice."""
    with tempfile.TemporaryDirectory() as folder:
        figures = {str(items): measured(Path(folder, str(items)), items, _USERS) for items in (_SMALL, _LARGE)}
    small, large = figures.values()
    ratio = large["seconds"] / small["seconds"]
    return {
        "ours": ratio, "unit": "times", "runs": 1, "origin": "simulated", "within_bars": ratio <= _LIMIT_RATIO,
        "by_items": figures,
    }  # fmt: skip


def measured(folder: Path, items: int, users: int) -> dict[str, float]:
    """Fit a ranker and rank with it, each in a process of its own: the peak of the one is not that of the other."""
    _apart(fit, folder, items)
    figures: dict[str, float] = _apart(rank, folder, items, users)
    return figures


def _apart(work: Callable[..., Any], *asked: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *asked).result()


def fit(folder: Path, items: int) -> None:
    """Leave a bundle in `folder`; SASRec sees a few users once, which its answers take no longer for."""
    sequences, rng = _sequences(items), np.random.default_rng(2)
    known = [sequence[:-1] for sequence in sequences]
    learnt = Learnt(items, known, [np.arange(len(sequence)) for sequence in known], seed=1)
    chosen = Chosen(0, {"forward": 3, "backward": 5, "both": 3}, "tf_idf", None)
    texts = [f"kind{n // _PER_KIND} {' '.join(f'w{w}' for w in rng.integers(0, _WORDS, 4))}" for n in range(items)]
    signals = fit_as_chosen(learnt, chosen, SignalsConfig(), {"tf_idf": tf_idf(texts)})
    some = replace(learnt, sequences=known[:_SASREC_USERS])
    signals["sasrec"] = SASRec.fit(some, SASRecConfig(epochs=1), None)
    told = [{"price": 1.0 + n % 7, "category": f"kind {n // _PER_KIND}"} for n in range(items)]
    ids = [f"i{n:07d}" for n in range(items)]
    fitted, facts = Fitted(signals, chosen, {}), Facts.of(learnt, told)
    bundle = Bundle(ids, fitted, facts, {}, Depth(), rank_own=True, split="time", until=0)
    # Stopped by what it learns from, it keeps about all of its trees, in a large shop as in a small one.
    learn = _labelled(bundle, sequences[:_LEARN])
    ranker = Ranker.fit(learn, learn, LearnerConfig(rounds=_TREES), seed=1)
    bundle.with_ranker(ranker, 0, "train").save(folder)


def rank(folder: Path, items: int, users: int) -> dict[str, float]:
    """Seconds, in all and by part, of ranking for so many users; GiB of the process and of the ranking alone."""
    bundle = Bundle.load(folder)
    if bundle.ranker is None:
        raise RuntimeError(f"{folder} holds no ranker")
    histories, spent, pairs = _sequences(items)[:users], dict[str, float](), 0
    before, busy = getrusage(RUSAGE_SELF), time.process_time()
    for start in range(0, len(histories), _AT_ONCE):
        pairs += _ranked(bundle, bundle.ranker, histories[start : start + _AT_ONCE], spent)
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return {
        "seconds": sum(spent.values()),
        "cpu_seconds": time.process_time() - busy,
        **{f"seconds.{part}": seconds for part, seconds in spent.items()},
        "users": float(len(histories)),
        "candidates": pairs / len(histories),
        "trees": float(bundle.ranker.trees.num_trees()),
        "peak_gib": peak / _GIB_IN_KIB,
        "ranking_gib": (peak - before.ru_maxrss) / _GIB_IN_KIB,
    }


def _ranked(bundle: Bundle, ranker: Ranker, histories: Sequence[Ints], spent: dict[str, float]) -> int:
    """Rank, add what each part took to `spent`, and count the candidates."""

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = work()
        spent[part] = spent.get(part, 0.0) + time.perf_counter() - start
        return found

    asked = Questions(histories)
    among = timed("candidates", lambda: candidates(bundle.mixed, asked, bundle.depth))
    table = timed("features", lambda: features(bundle.mixed, among, asked, bundle.facts))
    scores = timed("scores", lambda: ranker.scores(table))
    first = timed("lists", lambda: listed(among.pairs, scores, _LISTED))
    timed("reasons", lambda: ranker.reasons(Table(table.names, table.values[first])))
    return len(among.pairs)


def _labelled(bundle: Bundle, sequences: Sequence[Ints]) -> Labelled:
    asked, truth = Questions([sequence[:-1] for sequence in sequences]), np.array([one[-1] for one in sequences])
    among = candidates(bundle.mixed, asked, bundle.depth)
    table = features(bundle.mixed, among, asked, bundle.facts)
    return Labelled(table, among.pairs.questions, among.pairs.items == truth[among.pairs.questions])


def _sequences(items: int) -> list[Ints]:
    """Those of as many users as there are items, oldest event first."""
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, max(1, items // _PER_KIND), (items, _KINDS))
    own = np.take_along_axis(kinds, rng.integers(0, _KINDS, (items, _LENGTH)), axis=1)
    places = (_PER_KIND * rng.random((items, _LENGTH)) ** 2).astype(np.int64)
    return list(np.minimum(_PER_KIND * own + places, items - 1))
