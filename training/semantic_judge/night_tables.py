"""What is told of a night: a mean for each version and aspect, the checks, and the best and worst lists in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.semantic_judge.aspects import Aspect, overall, values_of
from training.semantic_judge.examples import Floats
from training.semantic_judge.gold import GoldSet
from training.semantic_judge.night import SCORE, Night, numbers_of
from training.semantic_judge.night_checks import Check
from training.semantic_judge.powered_means import PoweredMean, Residuals

CHECK_SCHEMA = pa.schema(
    [
        ("judge_version", pa.string()),
        ("check_name", pa.string()),
        ("measured_on", pa.string()),
        ("value", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("passed", pa.bool_()),
        ("why", pa.string()),
        ("origin", pa.string()),
    ]
)
MEAN_SCHEMA = pa.schema(
    [
        ("judge_version", pa.string()),
        ("model_version", pa.string()),
        ("role", pa.string()),
        ("aspect", pa.string()),
        ("submitted", pa.int64()),
        ("scored", pa.int64()),
        ("withheld", pa.bool_()),
        ("raw", pa.float64()),
        ("corrected", pa.float64()),
        ("lo", pa.float64()),
        ("hi", pa.float64()),
        ("gold_cases", pa.int64()),
    ]
)


def checks_table(checks: Sequence[Check], version: str, gold_origin: str, night_origin: str) -> pa.Table:
    """A row for each; `why` where it has not passed."""
    rows = [
        {
            "judge_version": version,
            "check_name": check.name,
            "measured_on": "gold" if check.gold else "night",
            "value": _finite(check.value),
            "lower": check.lower,
            "upper": check.upper,
            "passed": check.passed,
            "why": None if check.passed else check.sentence,
            "origin": gold_origin if check.gold else night_origin,
        }
        for check in checks
    ]
    return pa.Table.from_pylist(rows, schema=CHECK_SCHEMA)


def residuals_of(gold: GoldSet, numbers: Floats, scored: Sequence[Aspect]) -> dict[str, Residuals]:
    """Of each aspect that is known of some case, and of the score, what labels say beside what the judge does of the
    gold cases [n, 2 K + 1], asked as a night asks."""
    own, size = gold.labelled, len(scored)
    truth = values_of(gold.levels[own], scored)
    said, weights, score = numbers[own, :size], numbers[own, size : 2 * size], numbers[own, -1]
    users = np.array(gold.users)[own]
    found = {
        aspect.name: Residuals.of(truth[:, k].astype(float), said[:, k].astype(float), users)
        for k, aspect in enumerate(scored)
        if not np.isnan(numbers[:, k]).all()
    }
    return found | {SCORE: Residuals.of(overall(truth, weights).astype(float), score.astype(float), users)}


def means_table(
    rows: pa.Table, scored: Sequence[Aspect], residuals: Mapping[str, Residuals], version: str, *, withheld: bool
) -> pa.Table:
    """A row for each version of a model and aspect of the `residuals`, over all rows that were submitted."""
    return pa.Table.from_pylist(list(_means(rows, scored, residuals, version, withheld)), schema=MEAN_SCHEMA)


def _means(
    rows: pa.Table, scored: Sequence[Aspect], residuals: Mapping[str, Residuals], version: str, withheld: bool
) -> Iterator[dict[str, Any]]:
    least = {aspect.name: min(aspect.values) for aspect in scored}
    least[SCORE] = min(least.values())
    for model in sorted(rows["model_version"].unique().to_pylist()):
        own = rows.filter(pc.equal(rows["model_version"], model))
        users = np.array(own["user_id"].dictionary_encode().combine_chunks().indices)
        for aspect, residual in residuals.items():
            said = _floats(own[aspect])
            found = PoweredMean.of(said, users, least[aspect], residual)
            figures = {name: None if withheld else _finite(value) for name, value in vars(found).items()}
            yield {
                "judge_version": version,
                "model_version": model,
                "role": own["role"][0].as_py(),
                "aspect": aspect,
                "submitted": len(said),
                "scored": int((~np.isnan(said)).sum()),
                "withheld": withheld,
                **figures,
                "gold_cases": residual.cases,
            }


def told_lists(night: Night, asked: pa.Table, rows: pa.Table, lists: int) -> dict[tuple[str, str, str], str]:
    """Why each item of the best and of the worst `lists` of each version has its score, by user, version and item.

    Of lists that were scored whole, by the mean of their scores; of equal ones those of the first users.
    """
    chosen = {
        (user, model)
        for model in sorted(rows["model_version"].unique().to_pylist())
        for user in _ends(rows.filter(pc.equal(rows["model_version"], model)), lists)
    }
    found: dict[tuple[str, str, str], str] = {}
    wanted = pa.array(sorted({user for user, _ in chosen}), pa.string())
    users = asked.filter(pc.is_in(asked["user_id"], wanted)).to_pylist()
    places = {row["user_id"]: place for place, row in enumerate(users)}
    own = rows.filter(pc.is_in(rows["user_id"], wanted)).select(["user_id", "model_version", "item_id"]).to_pylist()
    keys = [(row["user_id"], row["model_version"], row["item_id"]) for row in own]
    keys = [key for key in keys if key[:2] in chosen]
    if keys:
        cases = night.cases(users, [(places[user], item) for user, _, item in keys])
        words = night.judge.evidence.sentences(night.judge.evidence.numbers(cases))
        for key, numbers, line in zip(keys, numbers_of(night.judge, cases), words, strict=True):
            found[key] = reason(night.aspects, numbers, line)
    return found


def reason(scored: Sequence[Aspect], numbers: Floats, evidence: str) -> str:
    """A sentence of what a judge of evidence has said of a case [2 K + 1], with no word of users or suppliers, nor of
    what is unknown."""
    values, weights = numbers[: len(scored)], numbers[len(scored) : 2 * len(scored)]
    told = ~np.isnan(values)
    said = [
        f"{aspect.name}: {aspect.words[int(np.abs(np.array(aspect.values) - value).argmin())]}"
        for aspect, value, own in zip(scored, values.tolist(), told, strict=True)
        if own
    ]
    even = bool(np.ptp(weights[told]) < 1e-3)
    counts = "all count the same" if even else f"{scored[int(weights.argmax())].name} counts most"
    return f"{', '.join(said)} ({counts}); {evidence}"


def _ends(rows: pa.Table, lists: int) -> list[str]:
    """The users of the best and of the worst lists of one version."""
    coded = rows["user_id"].combine_chunks().dictionary_encode()
    owner, score = np.array(coded.indices), _floats(rows[SCORE])
    sums = np.bincount(owner, weights=score) / np.bincount(owner)  # NaN where one was not scored
    users = coded.dictionary.to_pylist()
    whole = sorted((float(value), users[place]) for place, value in enumerate(sums) if not np.isnan(value))
    return [user for _, user in [*whole[:lists], *whole[max(lists, len(whole) - lists) :]]]


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), dtype=np.float64)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
