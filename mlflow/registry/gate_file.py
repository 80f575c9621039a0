"""Gate files: `mlflow/gates/<model>.yaml` says how a model is measured, and what a version must show to be promoted.

Page, card, the demo's summary and the table over seeds show the metrics that are named here, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, model_validator

from common.config import read_yaml
from common.formulas import Formula, parse_formula
from infra.errors import DataError
from infra.profile import CHECKOUT
from registry.values import Bootstrap

GATES = CHECKOUT / "mlflow" / "gates"
CHAMPION = "champion"
MARKET_METRICS: Mapping[str, Literal["higher", "lower"]] = {
    **dict.fromkeys(("clicks", "purchases", "revenue", "bids", "ecpm", "satisfaction", "preference"), "higher"),
    "leavers": "lower",
}
"""Of `market_replay`, each with the way that is better."""
BEST_BASELINE = "best_baseline"


class GateFileError(DataError):
    """A gate file is missing, or does not say what a gate must say."""


def _formula(declared: Any) -> Formula:
    """As pydantic wants its refusals."""
    try:
        return parse_formula(declared)
    except DataError as error:
        raise ValueError(f"{error.what}: {error.do}") from error


class Rule(BaseModel):
    """One demand on one metric, for all samples or for one slice of them.

    With `limit`: the value itself must reach it. With `against` (`champion`, a row of the evaluation such as
    `popularity`, or `best_baseline`): the worse end of the paired interval of the gain over that row must reach
    `margin`, or `share` of that row's own value; a negative one is a loss that is put up with. `direction` says which
    way is better. `counts`: `mean` holds the gain itself to it, and not the worse end: for "not below", which few
    samples cannot show outside their interval. `of`: the row of the evaluation that is asked, where a version has more
    than the one that it is `evaluated_as`. `otherwise`: what it means where the rule is not reached, in words; such a
    rule stops nothing, but report, decision and card say so: for what a version need not show, and nobody may claim
    that it has.

    `best_baseline` is the best of the gate's `baselines` on this metric, slice and split. It is chosen on the very
    samples that it is then met on, and the interval is that of a row named beforehand, so it does not know of the
    choice: where several baselines are close, the best is a little lucky, and the candidate's gain a little
    understated. The rule is never easier for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    of: str | None = None
    direction: Literal["higher", "lower"] = "higher"
    slice: str = "all"
    limit: float | None = None
    against: str | None = None
    margin: float | None = None
    share: float | None = None
    counts: Literal["worse_end", "mean"] = "worse_end"
    otherwise: str = ""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Rule:
        margins = [one for one in (self.margin, self.share) if one is not None]
        if (self.limit is None) == (self.against is None) or len(margins) != (self.against is not None):
            raise ValueError("a rule has either a limit, or against and one of margin and share")
        if self.counts == "mean" and self.against is None:
            raise ValueError("a limit is on the value itself: `counts` belongs to a rule against somebody")
        if self.otherwise and self.against is None:
            raise ValueError("a limit is held: `otherwise` belongs to a rule against somebody")
        return self

    @property
    def name(self) -> str:
        """How a report calls the rule."""
        asked = f" of {self.of}" if self.of else ""
        place = "" if self.slice == "all" else f" [{self.slice}]"
        mean = " in the mean" if self.counts == "mean" else ""
        told = " (told, not held)" if self.otherwise else ""
        return f"{self.metric}{asked}{place}" + (f" vs {self.against}{mean}" if self.against else "") + told


class MarketRule(BaseModel):
    """Not worse than the champion in the simulated market: a demand on a metric of the table `market_replay`.

    It is held when somebody decides, on the newest night that played the lists of both; without a champion, on what
    stood in for one (`registry.market`). `margin`, `share` and `counts` are those of `Rule`; which way is better
    follows from the metric. `required`: what was not played fails; else it passes. It belongs to the model whose lists
    are the table `recommendations`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    margin: float | None = None
    share: float | None = None
    counts: Literal["worse_end", "mean"] = "worse_end"
    required: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> MarketRule:
        if self.metric not in MARKET_METRICS:
            raise ValueError(f"the market does not measure {self.metric!r}, but: {', '.join(MARKET_METRICS)}")
        if (self.margin is None) == (self.share is None):
            raise ValueError("a rule of the market has one of margin and share")
        return self

    @property
    def direction(self) -> Literal["higher", "lower"]:
        """Which way is better."""
        return MARKET_METRICS[self.metric]

    @property
    def name(self) -> str:
        """How a report calls the rule."""
        mean = " in the mean" if self.counts == "mean" else ""
        return f"{self.metric} in the simulated market vs {CHAMPION}{mean}"


class JudgeRule(BaseModel):
    """Not worse than the champion by the semantic judge: a demand on the mean score of a night's lists.

    It is held when somebody decides, on the newest night of `judge_scores` that has scored the lists of both, and whose
    scores were not withheld; without a champion, on what stood in for one (`registry.judge`). `margin`, on the scale of
    the score (-1 to 1), and `counts` are those of `Rule`. `required`: what was not judged fails; else it passes. It
    belongs to the model whose lists are the table `recommendations`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float
    counts: Literal["worse_end", "mean"] = "worse_end"
    required: bool = False

    @property
    def share(self) -> None:
        """None: a score may be 0, and a share of it is nothing."""

    @property
    def direction(self) -> Literal["higher", "lower"]:
        """Which way is better."""
        return "higher"

    @property
    def name(self) -> str:
        """How a report calls the rule."""
        return f"judge's score vs {CHAMPION}" + (" in the mean" if self.counts == "mean" else "")


class Gate(BaseModel):
    """A model's gate.

    `system`, `evaluated_as`: the system whose evaluation measures it, and the model's name in `eval_values`; `split` is
    the split that decides. `metrics`: by name, formulas over `eval_values`; a rule may also set a limit to a number of
    the evaluation's run. `headline`, `show`: the first metric to look at, and those beside it, in their order.
    `minimum_scored`: the least share of the submitted samples that the model must have scored. `market`, `judge`: rules
    on its lists, beside those of the evaluation. `caveats`: what the model's card warns of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    system: str
    evaluated_as: str
    split: str
    unit: str
    minimum_samples: int
    minimum_shared: float
    minimum_scored: float
    bootstrap: Bootstrap = Bootstrap()
    metrics: Mapping[str, Annotated[Formula, PlainValidator(_formula)]]
    headline: str
    show: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    rules: tuple[Rule, ...]
    market: tuple[MarketRule, ...] = ()
    judge: tuple[JudgeRule, ...] = ()
    caveats: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Gate:
        if self.headline not in self.metrics:
            raise ValueError(f"the headline {self.headline!r} is none of the metrics: {', '.join(self.metrics)}")
        for rule in self.rules:
            formula = self.metrics.get(rule.metric)
            if formula is None and (rule.against is not None or rule.of is not None or rule.slice != "all"):
                raise ValueError(f"{rule.metric!r} is a number of the run: it has no samples to pair or to slice")
            if formula is not None and rule.direction == "lower" and formula.failed is None:
                raise ValueError(
                    f"less {rule.metric!r} is better, so its formula must say what a failed sample counts as (`failed`)"
                )
            if rule.against == BEST_BASELINE and not self.baselines:
                raise ValueError(f"{rule.name!r} needs `baselines` to choose from")
        return self

    @property
    def shown(self) -> tuple[str, ...]:
        """The headline and what stands beside it."""
        return tuple(dict.fromkeys((self.headline, *self.show)))

    @property
    def compared(self) -> tuple[str, ...]:
        """The metrics with a formula that are shown or ruled on."""
        asked = (*self.shown, *(rule.metric for rule in self.rules))
        return tuple(name for name in dict.fromkeys(asked) if name in self.metrics)


def models(folder: Path = GATES) -> list[str]:
    """The models with a gate."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def shown_metrics(system: str, folder: Path = GATES) -> tuple[str, ...]:
    """What the gates of a system's models show, the headline first; nothing for a system without a gate."""
    gates = [gate for gate in (load_gate(model, folder) for model in models(folder)) if gate.system == system]
    return tuple(dict.fromkeys(metric for gate in gates for metric in gate.shown))


def load_gate(model: str, folder: Path = GATES) -> Gate:
    """The gate of `model`.

    Raises:
        GateFileError: there is none, or a value does not fit.
        DataError: it is no YAML.
    """
    path = folder / f"{model}.yaml"
    if not path.is_file():
        known = ", ".join(models(folder)) or "none yet"
        do = f"Models with a gate: {known}. For a new model write {path.name}."
        raise GateFileError(f"Model {model!r} has no gate.", where=str(folder), do=do)
    try:
        return Gate.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise GateFileError("The gate file does not fit.", where=str(path), why=faults) from error
