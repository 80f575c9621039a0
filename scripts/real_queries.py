"""Makes real logs of queries into what query recommendation is measured on: docs/LOG.md has what came out.

    .venv/bin/python scripts/real_queries.py DATA OUT

DATA: the folder of the public data sets (PLUMBLINE_SHARED_DATA); a set that is not there is left out, and said. Below
OUT:

* `best_buy/landing`: the searches and clicks of Best Buy's mobile site (2011), for the ingest. Items have no words
  there: the title of one is what was searched for most, before `VALID`, by who clicked on it or on its category.
* `best_buy_things` and `esci_things`: sample tables for `python -m training bench --job queries_of_things`: whoever
  clicks on this thing, which query led to it? Of Best Buy a thing is known by the four commonest queries of its
  category by other people on training days; of ESCI it is a product that a query was judged exact for, with the queries
  (not the products) split into parts. ESCI names no people: each query stands for one.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

BEST_BUY, ESCI = "bestbuy-query-clicks-sample", "esci-us-150"
VALID, TEST = date(2011, 10, 17), date(2011, 10, 20)
_OTHERS = 4
_ESCI_PARTS = {"train": 8, "valid": 3, "test": 5}  # products of a query, at most
_ESCI_DAY = date(2022, 1, 1)
_TEXTS, _COUNTS, _TIME = pa.list_(pa.string()), pa.list_(pa.int64()), pa.timestamp("us", tz="UTC")
_SAMPLES = pa.schema(
    {
        **dict.fromkeys(("user_id", "form", "request_id", "split_time"), pa.string()),
        "sample_date": pa.date32(),
        "as_of": _TIME,
        **dict.fromkeys(("behaviour_days_ago", "shown_clicked"), _COUNTS),
        **dict.fromkeys(
            ("behaviour_actions", "behaviour_contents", "shown_queries", "labels", "label_sources"), _TEXTS
        ),
    }
)
_ITEMS = pa.schema({**dict.fromkeys(("item_id", "title", "brand", "category"), pa.string()), "in_stock": pa.bool_()})
_PROFILES = pa.schema({"user_id": pa.string(), "available_at": _TIME, "profile_text": pa.string()})


@dataclass(frozen=True)
class Led:
    """Who searched for what on which day, and the thing that it led to."""

    user: str
    day: date
    part: str
    query: str
    item: Mapping[str, Any]


def best_buy(data: Path) -> pd.DataFrame:
    """A row a click, in the order of time: user_id, item_id (its category where the log names no item), category, query
    and both times."""
    rows = pd.read_parquet(data / BEST_BUY / "query_clicks.parquet")
    times = {name: pd.to_datetime(rows[name], format="ISO8601", utc=True) for name in ("query_time", "click_time")}
    known = rows.rename(columns={"user": "user_id"}).assign(**times, item_id=rows["sku"].fillna(rows["category"]))
    known["query"] = known["query"].str.split().str.join(" ")
    return known[known["query"] != ""].sort_values(["click_time", "user_id"], ignore_index=True)


def land(rows: pd.DataFrame, folder: Path) -> None:
    """Write `items`, `events` and `searches` as the ingest takes them."""
    learnt = rows[rows["query_time"].dt.date < VALID].assign(words=rows["query"].str.lower())
    words = [learnt.groupby(name)["words"].agg(lambda own: own.mode()[0]) for name in ("item_id", "category")]
    items = rows.drop_duplicates("item_id")[["item_id", "category"]]
    title = items["item_id"].map(words[0]).fillna(items["category"].map(words[1])).fillna(items["category"])
    _write(folder / "items.parquet", items.assign(title=title, source="best_buy"))
    events = rows[["user_id", "item_id"]].assign(event_time=rows["click_time"], event_type="click")
    _write(folder / "events" / "clicks.parquet", events.drop_duplicates())
    searches = rows.drop_duplicates(["user_id", "query_time", "query"])
    number = searches.groupby("user_id").cumcount().astype(str)
    told = searches[["user_id", "query", "item_id"]]
    request, moment = searches["user_id"] + "-" + number, searches["query_time"]
    _write(
        folder / "searches" / "searches.parquet", told.assign(request_id=request, search_time=moment, source="typed")
    )


def best_buy_things(rows: pd.DataFrame) -> Iterator[Led]:
    """A thing for each row: its category, in words that others searched for on training days."""
    once = rows.drop_duplicates(["user_id", "query_time", "query", "category"]).to_dict("records")
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in once:
        if row["query_time"].date() < VALID:
            asked.setdefault(row["category"], []).append((row["user_id"], row["query"]))
    for number, row in enumerate(once):
        day, query = row["query_time"].date(), row["query"]
        known = Counter(words.lower() for user, words in asked.get(row["category"], []) if user != row["user_id"])
        words = " ".join(words for words, _ in known.most_common(_OTHERS))
        item = {"item_id": f"{row['category']}-{number}", "title": words, "category": row["category"]}
        yield Led(row["user_id"], day, "train" if day < VALID else "valid" if day < TEST else "test", query, item)


def esci_things(data: Path, items: Mapping[str, Mapping[str, Any]]) -> Iterator[Led]:
    """Products that a query was judged exact for, drawn by a hash."""
    judged = pd.read_parquet(data / ESCI / "judgments.parquet")
    exact = judged[judged["esci_label"] == "E"]
    for query, products in exact.groupby("query")["asin"]:
        draw = _hash(str(query)) % 100
        part = "test" if draw < 25 else "valid" if draw < 33 else "train"
        for asin in sorted(products, key=_hash)[: _ESCI_PARTS[part]]:
            yield Led(str(query), _ESCI_DAY, part, str(query), items[asin])


def esci_items(data: Path) -> dict[str, dict[str, Any]]:
    """The catalogue, by product."""
    rows = pd.read_parquet(data / ESCI / "products.parquet").to_dict("records")
    return {
        row["asin"]: {
            **{"item_id": row["asin"], "title": row["title"], "brand": row["brand"]},
            "category": " > ".join(row["category"]),
        }
        for row in rows
    }  # fmt: skip


def write_samples(folder: Path, led: Sequence[Led], items: Sequence[Mapping[str, Any]]) -> None:
    """The tables that stages read, as the lake has them. What somebody did on training days is known of them on the day
    after the last, in a request without a label: of that queries are counted by the thing that they led to."""
    rows = [_sample(one, form, number) for number, one in enumerate(led) for form in ("direct", "think")]
    for user in sorted({one.user for one in led if one.part == "train"}):
        rows.append(_after([one for one in led if one.user == user and one.part == "train"]))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, _SAMPLES), folder / "query_samples.parquet")
    pq.write_table(pa.Table.from_pylist(list(items), _ITEMS), folder / "items.parquet")
    pq.write_table(_PROFILES.empty_table(), folder / "user_profiles.parquet")


def _sample(one: Led, form: str, number: int) -> dict[str, Any]:
    done = [(0, "click", str(one.item["item_id"]))]
    labels = {"labels": [one.query], "label_sources": ["typed"]}
    return _row(one.user, one.day, form, f"{number}", one.part, done) | labels


def _after(own: Sequence[Led]) -> dict[str, Any]:
    day = max(one.day for one in own) + timedelta(days=1)
    done = [
        row
        for one in sorted(own, key=lambda one: one.day)
        for row in (((day - one.day).days, "search", one.query), ((day - one.day).days, "click", one.item["item_id"]))
    ]
    return _row(own[0].user, day, "direct", "after", "train", done)


def _row(
    user: str, day: date, form: str, request: str, part: str, done: Sequence[tuple[int, str, str]]
) -> dict[str, Any]:
    days_ago, actions, contents = (list(own) for own in zip(*done, strict=True))
    return {
        "user_id": user, "form": form, "request_id": request, "split_time": part, "sample_date": day,
        "as_of": datetime.combine(day, time(12), tzinfo=UTC), "behaviour_days_ago": days_ago,
        "behaviour_actions": actions, "behaviour_contents": contents, "shown_queries": [], "shown_clicked": [],
        "labels": [], "label_sources": [],
    }  # fmt: skip


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _write(file: Path, frame: pd.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(file, index=False)


def main(data: Path, out: Path) -> None:
    """Write what there is; say what is not there."""
    if (data / BEST_BUY).is_dir():
        rows = best_buy(data)
        land(rows, out / "best_buy" / "landing")
        led = list(best_buy_things(rows))
        write_samples(out / "best_buy_things", led, [one.item for one in led])
    else:
        print(f"left out: {data / BEST_BUY} is not there")
    if (data / ESCI).is_dir():
        catalogue = esci_items(data)
        write_samples(out / "esci_things", list(esci_things(data, catalogue)), list(catalogue.values()))
    else:
        print(f"left out: {data / ESCI} is not there")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python scripts/real_queries.py DATA OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
