"""A stage that trains a model further: its gate, and what it hands on, which is what it made or what it started from.

Each such stage hands on the gains of its chain's base (`base.json`), the model that the first of them started from. All
are held against it too, and to measure it again would cost each one an evaluation more.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.core.errors import DataError
from training.core.files import new_folder, write_json
from training.core.metrics import Floats, Interval, paired_difference
from training.core.stage import GATE_FILE, StageResult, StageSpec, is_main_process

_BASE_FILE = "base.json"


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
class Verdict:
    """What a gate saw; `reason` is empty where the stage is accepted.

    Means of the metric: of the chain's `base`, of the model that the stage started from (`before`) and of the one that
    it made (`after`). `difference`: after minus before; `difference_lo`: its one-sided 95 % lower bound.
    """

    base: float
    before: float
    after: float
    difference: float
    difference_lo: float
    valid: float
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the stage's model goes on; else the one that it started from does."""
        return not self.reason


@dataclass(frozen=True)
class GatedStage:
    """The model in the folder `start` on its way through a stage, and its gains on validation examples.

    `before` [examples] are the gains by `metric` as the stage starts, `base` those of its chain's base; `units` says of
    whom each example is. `examples` stands for what the examples are.
    """

    spec: StageSpec
    gate: StageGate
    start: Path
    metric: str
    units: Sequence[str]
    examples: str
    before: Floats
    base: Floats

    @classmethod
    def begin(
        cls,
        spec: StageSpec,
        gate: StageGate,
        start: Path,
        metric: str,
        asked: Sequence[tuple[str, object]],
        now: Floats,
    ) -> GatedStage:
        """`now`: the gains of the model in `start`, which is its chain's base where no gated stage has made it.

        `asked`: the unit of each example, and what the example is. Raises DataError where the stage below was measured
        on others.
        """
        examples = hashlib.sha256(repr(list(asked)).encode()).hexdigest()
        below = _read_base(start.parent, examples)
        base = now if below is None else below
        return cls(spec, gate, start, metric, [unit for unit, _ in asked], examples, now, base)

    def hold(self, after: Floats, valid: float) -> Verdict:
        """The verdict on a model with these gains [examples], of whose answers a share `valid` is well-formed."""
        # The lower end of a two-sided 90 % interval is the one-sided 95 % bound.
        change, whole = (
            paired_difference(after[:, None], start[:, None], self.units, seed=self.spec.seed, level=0.9)[0]
            for start in (self.before, self.base)
        )
        reasons = self._too_much(change, self.before, after, "")
        if not np.array_equal(self.before, self.base):
            reasons += self._too_much(whole, self.base, after, " from the base of the chain")
        if not valid >= self.gate.valid:
            reasons.append(f"{valid:.1%} of the unconstrained answers are valid, fewer than {self.gate.valid:.0%}")
        base, before, now = (float(gains.mean()) for gains in (self.base, self.before, after))
        return Verdict(base, before, now, change.value, change.lo, valid, "; ".join(reasons))

    def unchanged(self, reason: str, valid: float) -> Verdict:
        """The verdict where nothing was trained, for this reason."""
        before = float(self.before.mean())
        return Verdict(float(self.base.mean()), before, before, 0.0, 0.0, valid, reason)

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
            "accepted": verdict.accepted, "reason": verdict.reason, "note": note, "metric": self.metric,
            "start": verdict.base, "before": verdict.before, "after": verdict.after, "lower": verdict.difference_lo,
            "valid": verdict.valid, **values,
        }  # fmt: skip
        if is_main_process():
            with new_folder(self.spec.out_dir / self.start.name) as scratch:
                if verdict.accepted:
                    save(scratch)
                else:
                    shutil.copytree(self.start, scratch, dirs_exist_ok=True)
            write_json(self.spec.out_dir / _BASE_FILE, {"examples": self.examples, "gains": self.base.tolist()})
            write_json(self.spec.out_dir / GATE_FILE, record)
        figures = {name: value for name, value in asdict(verdict).items() if name != "reason"}
        return StageResult({"accepted": float(verdict.accepted), **figures, **values}, resumed_from=resumed_from)

    def _too_much(self, change: Interval, start: Floats, after: Floats, whence: str) -> list[str]:
        if change.lo >= -self.gate.max_loss * start.mean():  # a NaN is too much
            return []
        figures = f"{start.mean():.4f} to {after.mean():.4f}, at worst {change.lo / start.mean():.1%} (95%)"
        return [f"{self.metric}{whence} {figures}, more than {self.gate.max_loss:.0%} allowed"]


def _read_base(folder: Path, examples: str) -> Floats | None:
    if not (folder / _BASE_FILE).is_file():
        return None
    stored = json.loads((folder / _BASE_FILE).read_text())
    if stored["examples"] != examples:
        raise DataError(
            "the stage below was measured on other validation examples",
            where=str(folder),
            why="a chain of stages is held against its base, example by example",
            do="give all stages of a chain the same samples, seed, `history` and `gate.samples`",
        )
    return np.array(stored["gains"])
