"""A stage that trains a model further: its gate, and what it hands on, which is what it made or what it started from.

Each such stage leaves (`gains.json`) what is known of the model that it hands on, and the gains of its chain's base,
the model that the first of them started from: all are held against that too. What is known is not measured again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.core.metrics import Floats, Interval, paired_difference
from training.core.stage import GATE_FILE, StageResult, StageSpec, is_main_process

_GAINS_FILE = "gains.json"


@dataclass(frozen=True)
class StageGate:
    """A test of non-inferiority: the metric may not have lost more than the share `max_loss`, with 95 % confidence.

    The same examples are measured before and after, and the one-sided lower bound of the mean difference is a
    bootstrap's over their units. It is held against what the stage started from and against the base of its chain:
    losses that each are small enough would add up. `valid`: the least share of answers that are well-formed where
    nothing constrains what the model writes. Both INFERRED; measured on at most `samples` validation samples.
    """

    max_loss: float = 0.05
    valid: float = 0.95
    samples: int = 2000


@dataclass(frozen=True)
class Known:
    """Of a model: its gains, and the share of its answers that are well-formed, None where not measured."""

    gains: Floats
    valid: float | None


@dataclass(frozen=True)
class Verdict:
    """What a gate saw; `reason` is empty where the stage is accepted.

    Means of the first metric: of the chain's `base`, of the model that the stage started from (`before`) and of the one
    that it made (`after`). `difference`: after minus before; `difference_lo`: its one-sided 95 % lower bound. `goes_on`
    is of the model that goes on, `valid` of the one that was made.
    """

    base: float
    before: float
    after: float
    difference: float
    difference_lo: float
    valid: float
    reason: str
    goes_on: Known = field(compare=False, repr=False)

    @property
    def accepted(self) -> bool:
        """Whether the stage's model goes on; else the one that it started from does."""
        return not self.reason


@dataclass(frozen=True)
class GatedStage:
    """The model in the folder `start` on its way through a stage.

    `before` is what is known of it, `base` the gains of its chain's base. Gains are [examples] by the one of `metrics`,
    or [examples, metrics], NaN where an example has none by a metric; the stage is held by each, and the first one is
    told of. `units` says of whom each example is, `examples` stands for what they are.
    """

    spec: StageSpec
    gate: StageGate
    start: Path
    metrics: Sequence[str]
    units: Sequence[str]
    examples: str
    before: Known
    base: Floats

    @classmethod
    def begin(
        cls,
        spec: StageSpec,
        gate: StageGate,
        start: Path,
        metrics: Sequence[str],
        asked: Sequence[tuple[str, object]],
        measure: Callable[[], Floats],
    ) -> GatedStage:
        """`measure` gives the gains of the model in `start` where no gated stage has made it: it is its chain's base.

        `asked`: the unit of each example, and what the example is. Raises DataError where the stage below was measured
        on others.
        """
        examples = hashlib.sha256(repr(list(asked)).encode()).hexdigest()
        units, below = [unit for unit, _ in asked], _read_gains(start.parent, examples)
        if below is None:
            now = measure()
            return cls(spec, gate, start, metrics, units, examples, Known(now, None), now)
        before = Known(_read(below["gains"]), below["valid"])
        return cls(spec, gate, start, metrics, units, examples, before, _read(below["base"]))

    def hold(self, after: Floats, valid: float) -> Verdict:
        """The verdict on a model with these gains, of whose answers a share `valid` is well-formed."""
        columns = [_columns(gains) for gains in (self.base, self.before.gains, after)]
        compared = [self._compared(name, *(own[:, m] for own in columns)) for m, name in enumerate(self.metrics)]
        reasons = [reason for own in compared for reason in own.reasons]
        if not valid >= self.gate.valid:
            reasons.append(f"{valid:.1%} of the unconstrained answers are valid, fewer than {self.gate.valid:.0%}")
        goes_on, first = self.before if reasons else Known(after, valid), compared[0]
        change = first.change
        return Verdict(*first.means, change.value, change.lo, valid, "; ".join(reasons), goes_on)

    def unchanged(self, reason: str, valid: float) -> Verdict:
        """The verdict where nothing was trained, for this reason."""
        base, before = (float(np.nanmean(_columns(gains)[:, 0])) for gains in (self.base, self.before.gains))
        return Verdict(base, before, before, 0.0, 0.0, valid, reason, Known(self.before.gains, valid))

    def hand_on(
        self,
        verdict: Verdict,
        save: Callable[[Path], None],
        values: Mapping[str, float],
        note: str,
        resumed_from: int | None,
    ) -> StageResult:
        """Leave behind the model that `save` writes where it is accepted, else what the stage started from; and why.

        `values` are metrics of the stage, `note` is for people.
        """
        record = {
            "accepted": verdict.accepted, "reason": verdict.reason, "note": note, "metric": self.metrics[0],
            "start": verdict.base, "before": verdict.before, "after": verdict.after, "lower": verdict.difference_lo,
            "valid": verdict.valid, **values,
        }  # fmt: skip
        if is_main_process():
            with new_folder(self.spec.out_dir / self.start.name) as scratch:
                if verdict.accepted:
                    save(scratch)
                else:
                    shutil.copytree(self.start, scratch, dirs_exist_ok=True)
            goes_on = {"gains": _written(verdict.goes_on.gains), "valid": verdict.goes_on.valid}
            known = {"examples": self.examples, "base": _written(self.base), **goes_on}
            write_json(self.spec.out_dir / _GAINS_FILE, known)
            write_json(self.spec.out_dir / GATE_FILE, record)
        figures = {name: value for name, value in asdict(verdict).items() if name not in ("reason", "goes_on")}
        return StageResult({"accepted": float(verdict.accepted), **figures, **values}, resumed_from=resumed_from)

    def _compared(self, metric: str, base: Floats, start: Floats, after: Floats) -> _Compared:
        """By one metric, on the examples [examples] that the base has a gain of."""
        there = ~np.isnan(base)
        units = [unit for unit, own in zip(self.units, there, strict=True) if own]
        base, start, after = base[there], start[there], after[there]
        # The lower end of a two-sided 90 % interval is the one-sided 95 % bound.
        change, whole = (
            paired_difference(after[:, None], gains[:, None], units, seed=self.spec.seed, level=0.9)[0]
            for gains in (start, base)
        )
        reasons = self._too_much(metric, change, start, after)
        if not np.array_equal(start, base):
            reasons += self._too_much(f"{metric} from the base of the chain", whole, base, after)
        return _Compared((float(base.mean()), float(start.mean()), float(after.mean())), change, reasons)

    def _too_much(self, what: str, change: Interval, start: Floats, after: Floats) -> list[str]:
        if change.lo >= -self.gate.max_loss * start.mean():  # a NaN is too much
            return []
        figures = f"{start.mean():.4f} to {after.mean():.4f}, at worst {change.lo / start.mean():.1%} (95%)"
        return [f"{what} {figures}, more than {self.gate.max_loss:.0%} allowed"]


@dataclass(frozen=True)
class _Compared:
    """By one metric: the means of base, start and what was made, its change since the start, and why it is refused."""

    means: tuple[float, float, float]
    change: Interval
    reasons: list[str]


def _columns(gains: Floats) -> Floats:
    return gains.reshape(len(gains), -1)


def _written(gains: Floats) -> list[Any]:
    """As JSON has it, null for NaN."""
    values = gains.astype(object)
    values[np.isnan(gains)] = None
    return list(values.tolist())


def _read(gains: list[Any]) -> Floats:
    return np.array(gains, dtype=np.float64)  # None becomes NaN


def _read_gains(folder: Path, examples: str) -> dict[str, Any] | None:
    if not (folder / _GAINS_FILE).is_file():
        return None
    stored: dict[str, Any] = json.loads((folder / _GAINS_FILE).read_text())
    if stored["examples"] != examples:
        raise DataError(
            "the stage below was measured on other validation examples",
            where=str(folder),
            why="a chain of stages is held against its base, example by example",
            do="give all stages of a chain the same samples, seed, `history` and `gate.samples`",
        )
    return stored
