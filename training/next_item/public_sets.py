"""Public data sets as the tables that the stages read, for evaluations on a machine without Spark or a lake.

`python -m training.next_item.public_sets beauty --data DIR --out DIR` writes `items.parquet`,
`next_item_training_set.parquet` and `item_stats.parquet`, with the same meaning as the lake's: what a user did on one
day is not history of that day. Beauty and Instruments tell only the order of a user's items: each place in it is made a
day of its own, from 2000-01-01 on, and the leave-one-out split is the only one that means anything. Ratings are known
for Office alone.
Where the LETTER authors published semantic ids, they are the items' column `letter_codes`.

`grocery` is a small grocer: all purchases of the first 200 households of the landing folder that
scripts/grocery_landing.py makes (simulated, as their publisher says), and what they bought; `grocery_year` is those of
all households.

`market` is what was bought in a log of `python -m spark_jobs market simulate --folder DIR/market`, with the catalogue's
`items.parquet` put beside its `events/` (simulated). `--least`: only users and items with so many takes of each other,
as Amazon's sets are published.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import ConvertOptions, read_csv

from common.folders import make_folder
from training.core.errors import DataError, exit_code_of
from training.next_item.samples import PROFILE, RATINGS, SCHEMA

Name = Literal["beauty", "instruments", "office", "grocery", "grocery_year", "market"]
FOLDERS: Mapping[Name, str] = {
    "beauty": "amazon-beauty",
    "instruments": "amazon-instruments",
    "office": "amazon-office",
    "grocery": "grocery",
    "grocery_year": "grocery",
    "market": "market",
}
SIMULATED = frozenset({"grocery", "grocery_year", "market"})
Cuts = tuple[date, date]
_GROCERY_CUTS = date(2017, 10, 22), date(2017, 11, 26)
CUTS: Mapping[Name, Cuts] = {
    "office": (date(2018, 4, 11), date(2018, 5, 9)),
    "grocery": _GROCERY_CUTS,
    "grocery_year": _GROCERY_CUTS,
}
"""The first days of validation and of test, where days are real."""
HELD_OUT = 0.2  # of a market's takes, the last: half of them for validation, half for test
HOUSEHOLDS = 200
HISTORY, PROFILE_ITEMS, PROFILE_NAMES, PROFILE_TITLES = 50, 50, 3, 3
_ROWS_AT_ONCE = 100_000
_WORDS = ("item_id", "source", "title", "brand", "category", "description", "features")
ITEMS_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in _WORDS), ("price", pa.float64()), ("letter_codes", pa.list_(pa.int32()))]
)
_STATS_SCHEMA = pa.schema(
    {
        "item_id": pa.string(),
        "available_at": pa.timestamp("us", "UTC"),
        "events_365d": pa.int64(),
        "mean_rating_365d": pa.float64(),
    }
)
_YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Event:
    """One user took one item on one day; `rating` 1 to 5, None where it is not known."""

    user_id: str
    day: date
    item_id: str
    rating: float | None


def write_tables(name: Name, data: Path, out: Path, least: int = 1) -> None:
    """Read the set from its folder below `data`, cut it to its `least`-core, write the tables into `out`;
    DataError where it is not there."""
    items, events = read_set(name, data)
    events = core(events, least)
    make_folder(out)
    origin = {"origin": "simulated" if name in SIMULATED else "real"}
    pq.write_table(pa.Table.from_pylist(items, schema=ITEMS_SCHEMA.with_metadata(origin)), out / "items.parquet")
    pq.write_table(item_stats(events).replace_schema_metadata(origin), out / "item_stats.parquet")
    cuts = _last_days(events) if name == "market" else CUTS.get(name)
    rows, schema = samples(events, {str(item["item_id"]): item for item in items}, cuts), SCHEMA.with_metadata(origin)
    with pq.ParquetWriter(out / "next_item_training_set.parquet", schema) as file:
        while part := list(islice(rows, _ROWS_AT_ONCE)):
            file.write_table(pa.Table.from_pylist(part, schema=schema))


def read_set(name: Name, data: Path) -> tuple[list[dict[str, Any]], list[Event]]:
    """Rows of `ITEMS_SCHEMA` and what users took, of the set's folder below `data`; DataError where it is not there."""
    folder = data / FOLDERS[name]
    if not any((folder / f"items.{kind}").is_file() for kind in ("parquet", "csv")):
        raise DataError(f"the data set {name} is not there", where=str(folder), do="name the folder of the data sets")
    return _READ[name](folder) if name in _READ else _amazon(name, folder)


def _amazon(name: Name, folder: Path) -> tuple[list[dict[str, Any]], list[Event]]:
    listed = pq.read_table(folder / "items.parquet").to_pylist()
    kinds = known_categories([row.get("attributes") or [] for row in listed])
    items = [_item(name, row, kinds) for row in listed]
    if name != "office":
        return items, _ordered_events(folder)
    taken = pq.read_table(folder / "interactions.parquet").to_pylist()
    return items, [Event(row["user_id"], row["event_time"].date(), str(row["item_id"]), row["rating"]) for row in taken]


def _grocery(folder: Path, first: int | None) -> tuple[list[dict[str, Any]], list[Event]]:
    text = ConvertOptions(column_types=dict.fromkeys(_WORDS[:5], pa.string()), strings_can_be_null=True)
    listed = read_csv(folder / "items.csv", convert_options=text).to_pylist()
    bought = pq.read_table(folder / "events", columns=["user_id", "event_time", "item_id"]).to_pylist()
    households = set(sorted({row["user_id"] for row in bought}, key=int)[:first])
    found = {
        (row["user_id"], row["event_time"].date(), row["item_id"]) for row in bought if row["user_id"] in households
    }
    known = {item for _, _, item in found}
    items = [{**dict.fromkeys(ITEMS_SCHEMA.names), **row} for row in listed if row["item_id"] in known]
    return items, [Event(*one, None) for one in sorted(found)]


def _market(folder: Path) -> tuple[list[dict[str, Any]], list[Event]]:
    columns = ["user_id", "event_time", "item_id"]
    bought = pq.read_table(folder / "events", columns=columns, filters=[("event_type", "==", "purchase")]).to_pylist()
    found = {(row["user_id"], row["event_time"].date(), row["item_id"]) for row in bought}
    listed = pq.read_table(folder / "items.parquet").to_pylist()
    items = [{name: row.get(name) for name in ITEMS_SCHEMA.names} for row in listed]
    return items, [Event(*one, None) for one in sorted(found)]


def core(events: Sequence[Event], least: int) -> list[Event]:
    """Those of users and items that have at least `least` each, among themselves."""
    kept, before = list(events), -1
    while len(kept) != before:
        before = len(kept)
        users, items = Counter(event.user_id for event in kept), Counter(event.item_id for event in kept)
        kept = [event for event in kept if min(users[event.user_id], items[event.item_id]) >= least]
    return kept


_READ: Mapping[Name, Callable[[Path], tuple[list[dict[str, Any]], list[Event]]]] = {
    "grocery": partial(_grocery, first=HOUSEHOLDS),
    "grocery_year": partial(_grocery, first=None),
    "market": _market,
}


def _last_days(events: Sequence[Event]) -> Cuts | None:
    days = sorted(event.day for event in events)
    late = [days[int(len(days) * (1.0 - share))] for share in (HELD_OUT, HELD_OUT / 2)] if days else []
    return (late[0], late[1]) if late else None


def samples(
    events: Sequence[Event], items: Mapping[str, Mapping[str, str | None]], cuts: Cuts | None
) -> Iterator[dict[str, Any]]:
    """A row per event, its history and profile from the days before; without `cuts` all of it is for training."""
    valid_from, test_from = cuts or (date.max, date.max)
    ordered = sorted(events, key=lambda event: (event.user_id, event.day, event.item_id))
    for user, own in groupby(ordered, key=lambda event: event.user_id):
        past: list[Event] = []
        for day, of_day in groupby(own, key=lambda event: event.day):
            today = list(of_day)
            known, rated = ([getattr(event, of) for event in past[-HISTORY:]] for of in ("item_id", "rating"))
            text = profile(past[-PROFILE_ITEMS:], items)
            part = "train" if day < valid_from else "valid" if day < test_from else "test"
            for event in today:
                yield {
                    "user_id": user,
                    "sample_date": day,
                    "event_time": datetime(day.year, day.month, day.day, tzinfo=UTC),
                    "item_id": event.item_id,
                    "history_item_ids": known,
                    "split_time": part,
                    "feedback": feedback(event.rating),
                    PROFILE: text,
                    RATINGS: rated,
                }
            past += today


def item_stats(events: Sequence[Event]) -> pa.Table:
    """A row per item and day of activity: events and mean rating of the year that ends with that day, which may be used
    from the next day on."""
    rows: dict[str, list[Any]] = {name: [] for name in _STATS_SCHEMA.names}
    ordered = sorted(events, key=lambda event: (event.item_id, event.day))
    for item, own in groupby(ordered, key=lambda event: event.item_id):
        year: deque[Event] = deque()
        for day, of_day in groupby(own, key=lambda event: event.day):
            year.extend(of_day)
            while year[0].day <= day - _YEAR:
                year.popleft()
            given = [event.rating for event in year if event.rating is not None]
            mean = sum(given) / len(given) if given else None
            free = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            for column, value in zip(rows.values(), (item, free, len(year), mean), strict=True):
                column.append(value)
    return pa.table(rows, schema=_STATS_SCHEMA)


def feedback(rating: float | None) -> str:
    """1 and 2 are disliked, 3 and 4 neutral, 5 is liked; a rating that nobody gave is unknown, not disliked."""
    if rating is None:
        return "unknown"
    return "disliked" if rating < 3 else "neutral" if rating < 5 else "liked"


def profile(past: Sequence[Event], items: Mapping[str, Mapping[str, str | None]]) -> str | None:
    """What the items of the past say of their user; None where they say nothing."""
    known = [items[event.item_id] for event in past if event.item_id in items]
    brands = _most_frequent([item["brand"] for item in known])
    kinds = _most_frequent([(item["category"] or "").rpartition(" > ")[2] for item in known])
    titles = list(dict.fromkeys(item["title"] for item in reversed(known) if item["title"]))[:PROFILE_TITLES]
    parts = {"brands": ", ".join(brands), "kinds": ", ".join(kinds), "lately": " | ".join(titles)}
    return "; ".join(f"{name}: {text}" for name, text in parts.items() if text) or None


def _most_frequent(values: Sequence[str | None]) -> list[str]:
    counts = Counter(value for value in values if value)
    return sorted(counts, key=lambda value: (-counts[value], value))[:PROFILE_NAMES]


def known_categories(attributes: Sequence[Sequence[str]]) -> frozenset[str]:
    """What stands after another attribute of an item: a brand stands first or nowhere."""
    return frozenset(one for own in attributes for one in own[1:])


def _item(name: Name, row: Mapping[str, Any], kinds: frozenset[str]) -> dict[str, Any]:
    """Beauty's attributes name the brand first, where it is a frequent one, and then the path of categories (`kinds`).

    A published code reads `<b_241>`.
    """
    attributes = [one for one in row.get("attributes") or [] if one != "Unknown"]
    own = {
        "beauty": {
            "title": row.get("short_text"),
            "brand": next((one for one in attributes if one not in kinds), None),
            "category": " > ".join(one for one in attributes if one in kinds) or None,
        },
        "instruments": {},
        "office": {key: row.get(key) or None for key in ("title", "brand", "description")},
    }
    codes = [int(code.strip("<>").partition("_")[2]) for code in row.get("letter_sid") or []]
    known = {"item_id": str(row["item_id"]), "source": name, "letter_codes": codes or None}
    return {**dict.fromkeys(ITEMS_SCHEMA.names), **known, **own[name]}


def _ordered_events(folder: Path) -> list[Event]:
    start = date(2000, 1, 1)
    return [
        Event(str(row["user_id"]), start + timedelta(days=place), str(item), None)
        for row in pq.read_table(folder / "sequences.parquet").to_pylist()
        for place, item in enumerate(row["item_ids"])
    ]


def main() -> int:
    """Write the tables of one data set."""
    parser = argparse.ArgumentParser(prog="python -m training.next_item.public_sets", description=__doc__)
    parser.add_argument("name", choices=sorted(FOLDERS))
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the tables are written")
    parser.add_argument("--least", type=int, default=1, help="only users and items with so many takes of each other")
    options = parser.parse_args()
    return exit_code_of(lambda: write_tables(options.name, options.data, options.out, options.least))


if __name__ == "__main__":
    sys.exit(main())
