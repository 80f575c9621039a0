"""Gate files: `mlflow/gates/<model>.yaml` says what a version must show before it may be promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from infra.errors import PlumblineError
from infra.profile import CHECKOUT
from registry.values import Bootstrap, is_rank_metric

GATES = CHECKOUT / "mlflow" / "gates"
CHAMPION = "champion"


class GateFileError(PlumblineError):
    """A gate file is missing, or does not say what a gate must say."""


class Rule(BaseModel):
    """One demand on one metric, for all users or for one slice of them.

    With `limit`: the value itself must reach it. With `against` (`champion`, or a row of the evaluation such as
    `popularity`): the worse end of the paired interval of the gain over that row must reach `margin`, or `share` of
    that row's own value; a negative one is a loss that is put up with. `direction` says which way is better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    direction: Literal["higher", "lower"] = "higher"
    slice: str = "all"
    limit: float | None = None
    against: str | None = None
    margin: float | None = None
    share: float | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> Rule:
        margins = [one for one in (self.margin, self.share) if one is not None]
        if (self.limit is None) == (self.against is None) or len(margins) != (self.against is not None):
            raise ValueError("a rule has either a limit, or against and one of margin and share")
        if not is_rank_metric(self.metric) and (self.against is not None or self.slice != "all"):
            raise ValueError(f"{self.metric!r} is one number of the run: it has no samples to pair or to slice")
        return self

    @property
    def name(self) -> str:
        """How a report calls the rule."""
        place = "" if self.slice == "all" else f" [{self.slice}]"
        return f"{self.metric}{place}" + (f" vs {self.against}" if self.against else "")


class Gate(BaseModel):
    """A model's gate. `evaluated_as` is the model's name in `eval_ranks`, `split` the split that decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    evaluated_as: str
    split: str
    minimum_samples: int
    minimum_shared: float
    bootstrap: Bootstrap = Bootstrap()
    rules: tuple[Rule, ...]


def load_gate(model: str, folder: Path = GATES) -> Gate:
    """The gate of `model`.

    Raises:
        GateFileError: there is none, or a value does not fit.
    """
    path = folder / f"{model}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none yet"
        do = f"Models with a gate: {known}. For a new model write {path.name}."
        raise GateFileError(f"Model {model!r} has no gate.", where=str(folder), do=do)
    try:
        return Gate.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise GateFileError("The gate file does not fit.", where=str(path), why=faults) from error
