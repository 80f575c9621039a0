"""What people have corrected, which stands above any teacher, and how far teachers and people agree.

Cohen's kappa (Cohen 1960): (observed - expected agreement) / (1 - expected); with quadratic weights (Cohen 1968) a
level that is two places off is four times as wrong as one that is one off.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.core.errors import DataError
from training.core.stage import StageSpec, is_main_process, read_table
from training.core.tables import EmptyTable, refuse_nulls
from training.semantic_judge.aspects import UNKNOWN, Aspect, Levels
from training.semantic_judge.example_tables import TIME, found_by_key
from training.semantic_judge.examples import Examples, Ints

CORRECTIONS = "corrections"
"""The stage's query over the table `judge_corrections`, which a shop may not have."""
CORRECTION_COLUMNS = {
    "corrected_date": pa.date32(),
    "user_id": pa.string(),
    "as_of": TIME,
    "item_id": pa.string(),
    "aspect": pa.string(),
    "level": pa.int64(),
    "person": pa.string(),
}


@dataclass(frozen=True)
class Correction:
    """What one person says of one aspect of an example; `row`: the example's place, `aspect`: the aspect's, `day`."""

    row: int
    aspect: int
    level: int
    person: str
    day: int


def read_corrections(spec: StageSpec, examples: Examples, aspects: Sequence[Aspect]) -> list[Correction]:
    """Of the examples, by day; of one person the last word on an aspect counts. None where nobody has corrected.

    Raises DataError for a level that there is not; what is of other examples, or of an aspect that the shop has not, is
    passed over, and the log says how many.
    """
    if CORRECTIONS not in spec.tables:
        return []
    try:
        table = read_table(spec, CORRECTIONS, CORRECTION_COLUMNS)
    except EmptyTable:
        return []
    refuse_nulls(CORRECTIONS, table, CORRECTION_COLUMNS)
    places = found_by_key(examples, table)
    number = {aspect.name: k for k, aspect in enumerate(aspects)}
    days = table["corrected_date"].cast(pa.int32()).to_pylist()
    found: dict[tuple[int, int, str], Correction] = {}
    said = zip(*(table[name].to_pylist() for name in ("aspect", "level", "person")), strict=True)
    passed_over = 0
    for row, day, (aspect, level, person) in sorted(
        zip(places.tolist(), days, said, strict=True), key=lambda one: one[1]
    ):
        if row < 0 or aspect not in number:
            passed_over += 1
            continue
        k = number[aspect]
        _refuse_level(level, aspects[k], person)
        found[row, k, person] = Correction(row, k, level, person, day)
    if passed_over and is_main_process():
        sys.stderr.write(
            f"warning: {passed_over} of {len(table)} corrections are of no example of this run, or of an aspect that "
            "the shop has not, and change nothing\n"
        )
    return list(found.values())


def _refuse_level(level: int, aspect: Aspect, person: str) -> None:
    if not 0 <= level < len(aspect.values):
        raise DataError(
            f"a correction has the level {level} for {aspect.name}",
            where=f"{CORRECTIONS}, by {person}",
            why=f"its levels are 0 to {len(aspect.values) - 1}: {', '.join(aspect.words)}",
            do="correct the file, and land it again",
        )


def corrected(levels: Levels, corrections: Sequence[Correction]) -> tuple[Levels, NDArray[np.bool_]]:
    """`levels` [n, K] with what people say in place of what a teacher said, and which cells that are [n, K].

    Where people differ the middle one counts, the lower of two.
    """
    found, by_person = levels.copy(), np.zeros(levels.shape, dtype=bool)
    said: dict[tuple[int, int], list[int]] = defaultdict(list)
    for one in corrections:
        said[one.row, one.aspect].append(one.level)
    for cell, given in said.items():
        found[cell] = sorted(given)[(len(given) - 1) // 2]
        by_person[cell] = True
    return found, by_person


def agreement(levels: Levels, corrections: Sequence[Correction], aspects: Sequence[Aspect]) -> dict[str, float]:
    """Kappa of a teacher's `levels` [n, K] with people, and of people with each other, by aspect.

    `kappa.profile.teacher`, with `.weighted` for quadratic weights and `.n` for how many were compared; pairs of people
    are taken together. An aspect of which nobody has said anything has no figure.
    """
    found: dict[str, float] = {}
    for k, aspect in enumerate(aspects):
        own = [one for one in corrections if one.aspect == k]
        teacher = [(int(levels[one.row, k]), one.level) for one in own if levels[one.row, k] != UNKNOWN]
        by_row: dict[int, list[Correction]] = defaultdict(list)
        for one in sorted(own, key=lambda one: one.person):
            by_row[one.row].append(one)
        people = [(a.level, b.level) for given in by_row.values() for a, b in combinations(given, 2)]
        for who, pairs in (("teacher", teacher), ("people", people)):
            if pairs:
                a, b = np.array(pairs, dtype=np.int64).T
                name = f"kappa.{aspect.name}.{who}"
                found |= {name: kappa(a, b, len(aspect.values)), f"{name}.n": float(len(pairs))}
                found[f"{name}.weighted"] = kappa(a, b, len(aspect.values), quadratic=True)
    return found


def kappa(a: Ints, b: Ints, levels: int, *, quadratic: bool = False) -> float:
    """Cohen's kappa of two raters' levels [n] of 0 to `levels` - 1; NaN where both always say the same one."""
    counts = np.zeros((levels, levels))
    np.add.at(counts, (a, b), 1.0)
    observed = counts / counts.sum()
    by_chance = np.outer(observed.sum(axis=1), observed.sum(axis=0))
    place = np.arange(levels)
    apart = place[:, None] - place[None, :]
    wrong = (apart / max(levels - 1, 1)) ** 2 if quadratic else (apart != 0).astype(float)
    expected = float((wrong * by_chance).sum())
    return 1.0 - float((wrong * observed).sum()) / expected if expected else float("nan")
