"""The one parameter file of the market, typed, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from common.config import parse_config, read_yaml
from common.errors import DataError

_FILE = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class CatalogueParameters:
    """See parameters.yaml, here and below."""

    dimensions: int
    near: int
    appeal: float
    drift: float
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
class QueryParameters:
    """In which words people search."""

    answered: float
    near: int
    own: int
    words: int
    precise: float
    real: float
    appeal: float


@dataclass(frozen=True)
class HintParameters:
    """Who is shown hints in the search box, and what they do about them."""

    share: float
    click: float
    tiring: float


@dataclass(frozen=True)
class BidParameters:
    """Who pays for being clicked."""

    share: float
    median: float
    spread: float


@dataclass(frozen=True)
class LandingParameters:
    """How events reach the landing folder."""

    late: float
    days: float
    twice: float


@dataclass(frozen=True)
class ChatCause:
    """Why somebody asks the help desk: the moment in which it comes, its chance then, and what may be meant."""

    when: Literal["placed", "paid", "in_transit", "late", "lost", "delivered", "returned", "cancelled", "cart", "visit"]
    chance: float
    intents: tuple[str, ...]


@dataclass(frozen=True)
class ChatParameters:
    """The life of an order, and what is asked."""

    pays: float
    packs: float
    travels: float
    late: float
    delay: float
    lost: float
    cancelled: float
    returned: float
    keeps: float
    asks: float
    wrong_note: float
    causes: Mapping[str, ChatCause]

    def __post_init__(self) -> None:
        for one in ("cart", "visit"):
            self._require_a_chance(f"a {one}", [cause for cause in self.causes.values() if cause.when == one])
        orders = [cause for cause in self.causes.values() if cause.when not in ("cart", "visit")]
        self._require_a_chance("an order", orders)

    def _require_a_chance(self, what: str, causes: Sequence[ChatCause]) -> None:
        if (total := sum(cause.chance for cause in causes)) > 1 or any(cause.chance < 0 for cause in causes):
            why = f"they sum to {total:g}, and each is to lie between 0 and 1"
            do = "Each customer asks once at most; lower some chances in chats.causes."
            raise DataError(f"The chances that somebody asks about {what} are no chances.", why=why, do=do)


@dataclass(frozen=True)
class OpeningParameters:
    """What people do about intents that are shown before they type anything."""

    length: int
    overlooked: float
    mistaken: float
    leave: float
    annoyed: float


@dataclass(frozen=True)
class Parameters:
    """All of them."""

    catalogue: CatalogueParameters
    people: PeopleParameters
    utility: UtilityParameters
    choices: ChoiceParameters
    logging: LoggingParameters
    queries: QueryParameters
    hints: HintParameters
    hinting: LoggingParameters
    bids: BidParameters
    landing: LandingParameters
    chats: ChatParameters
    openings: OpeningParameters

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
