"""The one parameter file of the market, typed, and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.config import parse_config, read_yaml
from common.errors import DataError

_FILE = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class CatalogueParameters:
    """See parameters.yaml, here and below."""

    dimensions: int
    near: int
    appeal: float
    out_of_stock: float
    price: float


@dataclass(frozen=True)
class PeopleParameters:
    """Who comes."""

    tastes: int
    sessions: float
    newcomers: float
    remembers: int
    spread: float
    patience: float
    habit: float
    habit_spread: float
    budget: float
    need_lasts: float
    new_wish: float


@dataclass(frozen=True)
class UtilityParameters:
    """What an item is worth to a person."""

    text: float
    category: float
    brand: float
    price: float
    appeal: float
    own: float
    seen: float


@dataclass(frozen=True)
class ChoiceParameters:
    """What a person does about it."""

    click: float
    cart: float
    purchase: float
    done: float
    directly: float
    rates: float
    rating_noise: float
    leave: float
    disappointed: float


@dataclass(frozen=True)
class LoggingParameters:
    """What the shop shows."""

    length: int
    candidates: int
    temperature: float
    popular: float
    similar: float
    own: float
    version: str


@dataclass(frozen=True)
class BidParameters:
    """Who pays for being clicked."""

    share: float
    median: float
    spread: float


@dataclass(frozen=True)
class Parameters:
    """All of them."""

    catalogue: CatalogueParameters
    people: PeopleParameters
    utility: UtilityParameters
    choices: ChoiceParameters
    logging: LoggingParameters
    bids: BidParameters

    @classmethod
    def read(cls, file: Path = _FILE, setting: str | None = None) -> Parameters:
        """From a file, with what the `setting` changes. DataError names a value that is missing, unknown or of another
        kind, or a setting that the file does not have."""
        values = read_yaml(file)
        settings = values.pop("settings", {})
        if setting is not None and setting not in settings:
            raise DataError(
                f"The market has no setting {setting!r}.", where=str(file), do=f"Use one of: {', '.join(settings)}."
            )
        for section, changes in settings.get(setting, {}).items():
            values[section] = {**values.get(section, {}), **changes}
        return parse_config(cls, values, str(file))

    @property
    def hash(self) -> str:
        """Of the values: of comments and order nothing depends."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
