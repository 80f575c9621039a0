"""Features that are computed when they are asked for, from stored features and the request.

Apart from the definitions because Feast resolves the type hints of these functions, so pandas must be imported here.
"""

import pandas as pd


def recency(inputs: pd.DataFrame) -> pd.DataFrame:
    """Days from the user's last event to the moment of the request, and whether there is no such event (a cold user).

    Args:
        inputs: one row per request, with `last_event_time` (null: no event within the view's ttl) and `as_of_unix`
            (seconds since 1970).

    Returns:
        `days_since_last_event` (float, NaN where cold) and `is_cold` (bool), row by row.
    """
    last_event = pd.to_datetime(inputs["last_event_time"], utc=True)
    as_of = pd.to_datetime(inputs["as_of_unix"], unit="s", utc=True)
    days = (as_of - last_event) / pd.Timedelta(days=1)
    return pd.DataFrame({"days_since_last_event": days.astype("float64"), "is_cold": last_event.isna()})
