"""What ingest knows of a landed table beyond its contract: what dates a row, what is filled in, what names items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra.contracts import Column, Contract, load_contract
from spark_jobs.landing.rows import Wanted

OLDEST = datetime(1990, 1, 1, tzinfo=UTC)  # an earlier time is a mistake: a clock at its epoch, a year of two digits


@dataclass(frozen=True)
class Landed:
    """`time` is the column that dates a row: the partition column itself, or a timestamp whose day the partition is.

    `ids` are the columns that name a person or a thing. `defaults` fill an absent column or value. `refers_to_items`:
    item_id must be in the catalogue. A table that is not `needed_always` may have no landing file.
    """

    table: str
    time: str
    ids: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    refers_to_items: bool = False
    needed_always: bool = False

    @property
    def contract(self) -> Contract:
        """The table's contract."""
        return load_contract(self.table)

    @property
    def has_quiet_days(self) -> bool:
        """Whether a day without rows is a day on which nothing happened; of a catalogue it has no delivery."""
        return self.time != self.contract.partition

    @property
    def stands_in(self) -> bool:
        """Whether the good rows of a first delivery are better than none: without a catalogue nothing else is made."""
        return self.needed_always and not self.has_quiet_days

    @property
    def columns(self) -> list[Column]:
        """The columns that a landing file may have."""
        return [c for c in self.contract.columns if c.name == self.time or c.name != self.contract.partition]

    @property
    def accepted(self) -> list[str]:
        """Their names."""
        return [column.name for column in self.columns]

    @property
    def needed(self) -> list[str]:
        """Names of those that it must have."""
        filled = {*self.defaults, self.contract.partition}
        return [column.name for column in self.columns if column.required and column.name not in filled]

    @property
    def wanted(self) -> Wanted:
        """What its landing files must and may have."""
        return Wanted(self.table, tuple(self.accepted), tuple(self.needed), self.ids, self.time)


_TABLES = (
    Landed("items", "snapshot_date", ("item_id",), {"source": "shop"}, needed_always=True),
    Landed("events", "event_time", ("user_id", "item_id"), refers_to_items=True, needed_always=True),
    Landed("judgments", "judged_date", ("item_id",), {"source": "shop", "rater": "final"}, refers_to_items=True),
    Landed("intents", "valid_date", ("text_id",), {"source": "shop"}),
    Landed("queries", "query_date", (), {"source": "shop"}),
    Landed("exposures", "exposure_time", ("request_id", "user_id", "item_id"), refers_to_items=True),
    Landed("hint_exposures", "exposure_time", ("request_id", "user_id")),
    Landed("searches", "search_time", ("request_id", "user_id", "item_id"), refers_to_items=True),
    Landed("bids", "bid_time", ("item_id",), refers_to_items=True),
    Landed("judge_corrections", "corrected_date", ("user_id", "item_id", "person"), refers_to_items=True),
    Landed("chats", "chat_time", ("chat_id", "user_id", "item_id"), refers_to_items=True),
    Landed("true_people", "start_time", ("user_id",)),
    Landed("true_tastes", "start_time", ("user_id", "item_id")),
    Landed("true_requests", "request_time", ("request_id", "user_id", "wish_item_id")),
    Landed("true_exposures", "exposure_time", ("request_id",)),
    Landed("true_hints", "request_time", ("request_id", "user_id")),
    Landed("true_chats", "chat_time", ("chat_id",)),
)
TABLES = {landed.table: landed for landed in _TABLES}
