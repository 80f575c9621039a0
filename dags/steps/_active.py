"""Who is recommended to, and after what: the users active of late, each with the history up to the end of a day."""

from __future__ import annotations

from datetime import date, timedelta

import duckdb
import pyarrow as pa

from feature_store.point_in_time import read_rows
from infra.contracts import load_contract
from infra.lake import Lake

# The history of a user's last day ends before that day: the day's own events complete it, in the order of `histories`.
_QUERY = """
WITH last AS (SELECT user_id, max(history_date) AS day FROM histories GROUP BY ALL),
today AS (
  SELECT last.user_id, list(item_id ORDER BY event_time, item_id, event_type) AS items
  FROM last JOIN events ON events.user_id = last.user_id AND events.event_date = last.day GROUP BY ALL
)
SELECT last.user_id, list_concat(histories.item_ids, coalesce(today.items, [])) AS item_ids
FROM last JOIN histories ON histories.user_id = last.user_id AND histories.history_date = last.day
LEFT JOIN today ON today.user_id = last.user_id ORDER BY ALL
"""


def active_histories(lake: Lake, day: date, days: int) -> pa.Table:
    """`user_id` and `item_ids` (oldest first) of each user with an event in the `days` days that end with `day`."""
    first = day - timedelta(days=days - 1)
    with duckdb.connect() as connection:
        for table in ("histories", "events"):
            files = [file.path for file in lake.files(table, first=first, last=day)]
            connection.register(table, read_rows(files, load_contract(table)))
        return connection.sql(_QUERY).to_arrow_table()
