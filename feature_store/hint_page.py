"""The page of hints: what the search box shows to whom, and why, as the online store answers now.

`write_hint_page` puts it beside the report; the feature server renders the same at `/hints`, for anybody that is asked
for. A person's hints are those of `hints_of`, for the things that called for their lists; who has no lists yet is
found by what they did, among the triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from common.query_text import normalised
from feature_store.definitions import EVENT_TIME, TRIGGER_QUERIES, USER_HINTS
from feature_store.hints import ITEM, SEARCH, Found, Shown, hints_of, of_triggers, trigger_of
from feature_store.index import version_in_force
from feature_store.online import online_rows
from feature_store.point_in_time import scan_rows
from infra.contracts import load_contract
from infra.lake import Lake
from infra.partitions import DataFile
from infra.profile import Profile
from infra.report.page import environment, put_page

PAGE = "hints.html"
ADDRESS = "/hints"
_LONGEST = 200
LISTED = 100
"""So many people and so many triggers are on the page; the others can be asked for where it is served."""


@dataclass(frozen=True)
class PersonCard:
    """A person, what called for their lists (kind and key, the newest first), and the hints that they see."""

    user_id: str
    triggers: tuple[tuple[str, str], ...]
    hints: tuple[Shown, ...]


@dataclass(frozen=True)
class TriggerCard:
    """Something that can be done, and the queries that the index in force has for it."""

    kind: str
    trigger: str
    queries: tuple[Found, ...]


@dataclass(frozen=True)
class Asked:
    """For whom, or for what, the page was asked; empty without a question."""

    user_id: str = ""
    trigger: str = ""


def write_hint_page(profile: Profile) -> Path | None:
    """The page beside the report; None where no hints were ever published."""
    from feature_store.store import opened_store

    lake = Lake(profile)
    if not lake.files(USER_HINTS.table) and not lake.files(TRIGGER_QUERIES.table):
        return None
    with opened_store(profile) as store:
        return put_page(profile.home / "report" / PAGE, rendered(lake, store, datetime.now(UTC)))


def add_hint_page(app: Any, lake: Lake, store: Any) -> None:
    """Answer at `/hints`, `/hints?user=ID` and `/hints?trigger=ITEM OR SEARCH` of the feature server."""
    from fastapi.responses import HTMLResponse

    @app.get(ADDRESS, response_class=HTMLResponse)  # type: ignore[untyped-decorator]
    def hints(user: str = "", trigger: str = "") -> str:
        return rendered(lake, store, datetime.now(UTC), Asked(user.strip()[:_LONGEST], trigger.strip()[:_LONGEST]))


def rendered(lake: Lake, store: Any, now: datetime, asked: Asked | None = None) -> str:
    """The page; with a form to ask for others where it is served (`asked`), whose answer comes first."""
    users, triggers = _newest_people(lake), _largest_triggers(lake)
    if asked and asked.user_id:
        users = [asked.user_id, *(user for user in users if user != asked.user_id)]
    if asked and asked.trigger:
        wanted = [(ITEM, asked.trigger), (SEARCH, normalised(asked.trigger))]
        triggers = [*wanted, *(one for one in triggers if one not in wanted)]
    people = [_person(store, user, now) for user in users]
    found = zip(triggers, of_triggers(store, triggers), strict=True)
    things = [TriggerCard(*trigger, tuple(own)) for trigger, own in found]
    titles = _titles(lake, [*(one for person in people for one in _named(person)), *triggers])
    return (
        environment(Path(__file__).parent)
        .get_template("hint_page.html.j2")
        .render(
            made_at=now,
            asked=asked,
            people=people,
            things=things,
            titles=titles,
            version=version_in_force(store),
            origin=load_contract(USER_HINTS.table).origin,
        )
    )


def _person(store: Any, user_id: str, now: datetime) -> PersonCard:
    row = online_rows(store, USER_HINTS, [user_id]).get(user_id)
    done = list(zip(row["trigger_actions"], row["trigger_contents"], strict=True)) if row else []
    oldest_first = list(reversed(done))
    return PersonCard(
        user_id, tuple(trigger_of(*one) for one in done), tuple(hints_of(store, user_id, oldest_first, now=now))
    )


def _named(person: PersonCard) -> Iterable[tuple[str, str]]:
    yield from person.triggers
    yield from ((why.kind, why.trigger) for hint in person.hints for why in hint.why)


def _newest_people(lake: Lake) -> list[str]:
    """Those whose lists were written last, of as many days as it takes."""
    files, found = lake.files(USER_HINTS.table), dict[str, None]()
    for day in sorted({file.partition for file in files}, reverse=True):
        rows = _rows_of(files, day, USER_HINTS.table, ["user_id", EVENT_TIME]).sort_by([(EVENT_TIME, "descending")])
        found |= dict.fromkeys(rows["user_id"].to_pylist())
        if len(found) >= LISTED:
            break
    return list(found)[:LISTED]


def _largest_triggers(lake: Lake) -> list[tuple[str, str]]:
    """Those that the most people stand behind."""
    files = lake.files(TRIGGER_QUERIES.table)
    newest = max((file.partition for file in files), default=None)
    rows = _rows_of(files, newest, TRIGGER_QUERIES.table, ["kind", "trigger", "people"])
    largest = rows.group_by(["kind", "trigger"]).aggregate([("people", "sum")])
    order = [("people_sum", "descending"), ("kind", "ascending"), ("trigger", "ascending")]
    return [(row["kind"], row["trigger"]) for row in largest.sort_by(order)[:LISTED].to_pylist()]


def _rows_of(files: Iterable[DataFile], day: date | None, table: str, columns: Sequence[str]) -> pa.Table:
    paths = [file.path for file in files if file.partition == day]
    return scan_rows(paths, load_contract(table)).to_table(columns=list(columns))


def _titles(lake: Lake, triggers: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Of the items among them, as the newest catalogue has them."""
    wanted = pa.array({key for kind, key in triggers if kind == ITEM}, pa.string())
    files = lake.files("items")
    newest = max((file.partition for file in files), default=None)
    items = scan_rows([file.path for file in files if file.partition == newest], load_contract("items"))
    found = items.to_table(columns=["item_id", "title"], filter=pc.field("item_id").isin(wanted))
    return {row["item_id"]: row["title"] or "" for row in found.to_pylist()}
