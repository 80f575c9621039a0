"""Cheap judges that stand beside every other one: a score for each example, from what judges may see.

What is learnt is learnt from the training part. None of them knows aspects.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.semantic_judge.evidence import DISLIKED, LIKED, Evidence, column
from training.semantic_judge.evidence_judge import one_thread, standard
from training.semantic_judge.examples import Examples, Floats, Ints, Pairs

MAJORITY = "majority"
_PRIOR = 5.0  # ratings of the mean kind beside those of an item
_LEAST = 50
_STRENGTHS = (0.003, 0.03, 0.3, 1.0, 3.0)


def baselines(
    examples: Examples, pairs: Pairs, evidence: Evidence, numbers: Floats, learn: Ints, seed: int
) -> Iterator[tuple[str, Floats]]:
    """Each row's name and scores [n]. `learn`: the training rows, without what later pairs ask about.

    `item_rating` is what others gave the item in the year before the day, `item_mean` in all of the training part,
    `nearness` the cosine with the nearest liked item, `text_liked` a logistic regression of liked against disliked on
    the vector of the item's text, `pairs_direct` one on the evidence of training pairs, without any teacher. Where a
    shop has no ratings, or too few pairs, the rows that learn from them are missing.
    """
    yield MAJORITY, np.zeros(len(examples), dtype=np.float32)
    yield "popularity", np.nan_to_num(column(numbers, "item.events"))
    yield "item_rating", _known(column(numbers, "item.rating"))
    yield "nearness", _known(column(numbers, "near.liked"))
    rating, item = examples.hindsight.rating, examples.cases.item
    rated = _once(examples, learn[~np.isnan(rating[learn]) & examples.hindsight.taken[learn]])
    if len(rated):
        yield "item_mean", _item_means(rating[rated], item[rated], len(examples.cases.catalogue))[item]
    said = rated[(rating[rated] >= LIKED) | (rating[rated] <= DISLIKED)]
    valid = _once(examples, _said(examples, examples.rows_of("valid")))
    if len(said) >= _LEAST and len(valid) and len(set((rating[said] >= LIKED).tolist())) == 2:
        yield "text_liked", _text_liked(examples, evidence, said, valid, seed)[item]
    train, held = pairs.of_subset("train"), pairs.of_subset("valid")
    if len(train) >= _LEAST:
        yield "pairs_direct", _direct(numbers, train, held, seed)


def _said(examples: Examples, rows: Ints) -> Ints:
    rating = examples.hindsight.rating[rows]
    return rows[examples.hindsight.taken[rows] & ((rating >= LIKED) | (rating <= DISLIKED))]


def _once(examples: Examples, rows: Ints) -> Ints:
    """The first of the rows that are of one user and one item: an item is an example on several days."""
    _, first = np.unique(examples.who_and_what()[rows], return_index=True)
    return rows[np.sort(first)]


def _known(values: Floats) -> Floats:
    """With their mean where nobody knows: better than being told the worst."""
    known = ~np.isnan(values)
    mean = values[known].mean() if known.any() else np.float32(0.0)
    return np.where(known, values, mean).astype(np.float32)


def _item_means(rating: Floats, item: Ints, items: int) -> Floats:
    total, count = np.bincount(item, weights=rating, minlength=items), np.bincount(item, minlength=items)
    return ((total + _PRIOR * float(rating.mean())) / (count + _PRIOR)).astype(np.float32)


def _text_liked(examples: Examples, evidence: Evidence, said: Ints, valid: Ints, seed: int) -> Floats:
    """Of each item of the catalogue, the log odds that it is liked; as regular as validation wants it: [items]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    liked, item = examples.hindsight.rating >= LIKED, examples.cases.item
    best, found = -1.0, np.zeros(len(evidence.vectors))
    for strength in _STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=300, class_weight="balanced", random_state=seed)
        with one_thread():
            scores = fitted.fit(evidence.vectors[item[said]], liked[said]).decision_function(evidence.vectors)
        both = len(set(liked[valid].tolist())) == 2
        auc = float(roc_auc_score(liked[valid], scores[item[valid]])) if both else 0.5
        if auc > best:
            best, found = auc, scores
    return found.astype(np.float32)


def _direct(numbers: Floats, train: Pairs, held: Pairs, seed: int) -> Floats:
    """Bradley and Terry (1952) on evidence: P(a over b) = sigmoid(w (x_a - x_b)); what is unknown is the mean."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = standard(numbers[np.concatenate([train.preferred, train.other])])
    values = np.nan_to_num((numbers - mean) / scale)
    apart = values[train.preferred] - values[train.other]
    both, right = np.concatenate([apart, -apart]), np.repeat([1, 0], len(apart))
    best, found = -1.0, np.zeros(len(numbers))
    for strength in _STRENGTHS:
        fitted = LogisticRegression(C=strength, fit_intercept=False, max_iter=300, random_state=seed)
        with one_thread():
            scores = fitted.fit(both, right).decision_function(values)
        share = float((scores[held.preferred] > scores[held.other]).mean()) if len(held) else 0.0
        if share > best:
            best, found = share, scores
    return found.astype(np.float32)
