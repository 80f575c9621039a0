"""What a trained judge, and the cheap rows beside it, say of all that people were shown: a table of scores.

`python -m training.semantic_judge.shown --run RUN --shown DIR --out FILE.parquet`. RUN is the folder of a training run
whose stage `evaluate` is done; `python -m spark_jobs market shown` writes DIR. The market, which knows what it was
worth to people, holds the scores against that (`python -m spark_jobs market judged`): nothing of it comes here.

A person is known as of the midnight before a list, as in `judge_training_set`: of whom that has no example of the day,
nothing is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import DataError, exit_code_of
from training.core.stage import StageSpec, TableRef, read_table
from training.semantic_judge.aggregator import load_aggregator
from training.semantic_judge.baselines import baselines
from training.semantic_judge.evidence_judge import EvidenceJudge
from training.semantic_judge.example_tables import TIME, read_pairs
from training.semantic_judge.examples import SUBSETS, Cases, Examples, Floats, Hindsight, Ints, rows_to_learn
from training.semantic_judge.item_statistics import TABLE as STATISTICS
from training.semantic_judge.item_statistics import ItemStatistics
from training.semantic_judge.judge import Scores, Uniform
from training.semantic_judge.parts import aggregator_of
from training.semantic_judge.stages.evaluate import EVIDENCE
from training.semantic_judge.taught import Taught

EXPOSURES = "exposures"
_COLUMNS = {
    "request_id": pa.string(),
    "position": pa.int64(),
    "user_id": pa.string(),
    "item_id": pa.string(),
    "exposure_time": TIME,
}
_KEY = ("request_id", "position", "user_id", "item_id")
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Told:
    """`scores`: `request_id`, `position`, `user_id`, `item_id` and a column for each row; and how many places of how
    many were `shown` to somebody of whom nothing is known, or are of no item of the judge's catalogue."""

    scores: pa.Table
    shown: int


def scores_of(run: Path, shown: Path, scratch: Path) -> Told:
    """Score what was shown. DataError where the run has no evaluation, or nobody who was shown anything is known."""
    file = run / "evaluate" / "spec.json"
    if not file.is_file():
        raise DataError("the run has no evaluation", where=str(file), do="run the stages of the judge up to `evaluate`")
    spec = StageSpec.load(file)
    given = {name: TableRef((str(shown / f"{name}.parquet"),)) for name in (EXPOSURES, STATISTICS)}
    spec = replace(spec, out=str(scratch), tables={**spec.tables, **given})
    taught = Taught.load(spec)
    places = read_table(spec, EXPOSURES, _COLUMNS)
    known, cases = _cases(taught.examples, places, ItemStatistics.read(spec, taught.evidence.catalogue))
    if not len(known):
        do = "ask for lists of days that the judge's examples are of"
        raise DataError("nobody who was shown anything stands in the judge's examples", where=str(shown), do=do)
    rows = _rows(spec, taught, cases)
    columns: dict[str, pa.Array] = {name: places[name].take(pa.array(known)) for name in _KEY}
    return Told(
        pa.table({**columns, **{name: values.astype(np.float64) for name, values in rows.items()}}), len(places)
    )


def _cases(examples: Examples, places: pa.Table, statistics: ItemStatistics) -> tuple[Ints, Cases]:
    """The rows of `places` of which something is known, and these as cases."""
    states, catalogue = examples.cases.states, examples.cases.catalogue
    number = {key: place for place, key in enumerate(zip(states.users, states.days.tolist(), strict=True))}
    days = places["exposure_time"].cast(pa.int64()).to_numpy() // _DAY
    asked = zip(places["user_id"].to_pylist(), days.tolist(), strict=True)
    state = np.array([number.get(key, -1) for key in asked], dtype=np.int64)
    item = np.array([catalogue.numbers.get(one, -1) for one in places["item_id"].to_pylist()], dtype=np.int64)
    known = np.flatnonzero((state >= 0) & (item >= 0))
    return known, Cases(
        catalogue, states, state[known], item[known], *statistics.of(item[known], days[known].astype(np.int64))
    )


def _rows(spec: StageSpec, taught: Taught, cases: Cases) -> Mapping[str, Floats]:
    """By row, its scores of the cases: the judge weighed as it is packaged, its aspects one by one, the cheap rows."""
    numbers = taught.evidence.numbers(cases)
    judge = EvidenceJudge.load(spec.artifact(EVIDENCE) / "judge", taught.evidence)
    made = aggregator_of(spec)
    aggregator = load_aggregator(made, judge.aspects) if made else Uniform(judge.aspects)
    said = Scores.of(judge.chances_of(numbers), judge.aspects, aggregator, cases)
    values = np.nan_to_num(said.aspects)  # an aspect that is unknown orders nothing: all of the list are the same
    found = {EVIDENCE: said.score}
    found |= {f"{EVIDENCE}.{aspect.name}": values[:, k] for k, aspect in enumerate(judge.aspects)}
    pairs, own = read_pairs(spec, taught.examples), len(taught.examples)
    learn = rows_to_learn(taught.examples, pairs, "train")
    both, all_ = _with(taught.examples, cases), np.concatenate([taught.numbers, numbers])
    cheap = baselines(both, pairs, taught.evidence, all_, learn, spec.seed)
    return found | {name: scores[own:] for name, scores in cheap}


def _with(examples: Examples, cases: Cases) -> Examples:
    """The examples and behind them these cases, of the part for test, without hindsight: nothing learns from them."""
    more, own = len(cases), examples.cases
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(own, name), getattr(cases, name)])
        for name in ("state", "item", "mean_rating", "events")
    }
    hindsight = Hindsight(
        np.concatenate([examples.hindsight.starts, np.repeat(examples.hindsight.starts[-1:], more)]),
        examples.hindsight.later,
        np.concatenate([examples.hindsight.rating, np.full(more, np.nan, dtype=np.float32)]),
        *(
            np.concatenate([own, np.zeros(more, dtype=bool)])
            for own in (examples.hindsight.taken, examples.hindsight.passed)
        ),
    )
    subset = np.concatenate([examples.subset, np.full(more, SUBSETS.index("test"), dtype=np.int8)])
    return Examples(replace(own, **columns), hindsight, subset)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m training.semantic_judge.shown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a training run, with its stages")
    parser.add_argument("--shown", type=Path, required=True, help="the folder of what was shown")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the scores are written")
    options = parser.parse_args()
    return exit_code_of(lambda: _write(options.run, options.shown, options.out))


def _write(run: Path, shown: Path, out: Path) -> None:
    told = scores_of(run, shown, out.absolute().parent)
    pq.write_table(told.scores, out)
    sys.stdout.write(
        f"{out}: {len(told.scores):,} of {told.shown:,} places; the others are of people unknown that day\n"
    )


if __name__ == "__main__":
    sys.exit(main())
