"""What the store says of users at the end of a day, for lists that are made then.

It is the training set's own join, of the same views, as of the same moment that a sample of the next day has: 00:00 UTC
of that day. So a model is served what it would have learnt from.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from feature_store.definitions import USER, USERS, service_views
from feature_store.point_in_time import AS_OF, join_features, joined
from feature_store.sources import require_committed
from feature_store.training_sets import NEXT_ITEM, pins_of
from infra.contracts import arrow_schema, load_contract
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile


def with_user_features(profile: Profile, rows: pa.Table, day: date, wanted: Collection[str]) -> pa.Table:
    """`rows` by `user_id`, with those of the `wanted` features, by full name, that the training set still has.

    Columns have the types of the training set's; no other is added, whatever is wanted.

    Raises:
        DataError: a table behind the store is not committed for the day: what it says would be older than it seems.
    """
    types = arrow_schema(load_contract(NEXT_ITEM.table))
    features = [types.field(name).with_nullable(True) for name in wanted if name in types.names]
    if not (features and rows.num_rows):
        return rows
    for view in service_views(USERS):
        require_committed(Ledger(profile), view.table, day, day)
    as_of = day + timedelta(days=1)
    moment = pa.scalar(datetime.combine(as_of, time(), UTC), types.field(AS_OF).type)
    asked = rows.append_column(AS_OF, pa.repeat(moment, rows.num_rows))
    pins = pins_of(Lake(profile), USERS, as_of, as_of)
    found = join_features(profile, USERS, list(pins.values()), asked)
    return joined(asked, found, pa.schema([*rows.schema, *features]), (USER.key,), (USER.key,), f"users of {day}")
