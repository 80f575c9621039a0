-- The sessions job written for DuckDB, in another shape: sessions by their number, lists by list_slice.
WITH ranked AS (
  SELECT *, row_number() OVER day AS rank, event_time - lag(event_time) OVER day AS pause
  FROM events
  WINDOW day AS (PARTITION BY user_id, event_date ORDER BY event_time, item_id, event_type)
), numbered AS (
  SELECT *, sum(CASE WHEN rank <= $max_user_day_events AND (pause IS NULL OR pause > to_minutes($gap_minutes)) THEN 1 ELSE 0 END)
    OVER (PARTITION BY user_id, event_date ORDER BY rank) AS number
  FROM ranked
), grouped AS (
  SELECT event_date AS session_date, user_id, min(event_time) AS started_at,
    max(event_time) FILTER (rank <= $max_user_day_events) AS ended_at,
    count(*) FILTER (rank <= $max_user_day_events) AS n_events,
    list(item_id ORDER BY rank) FILTER (rank <= $max_user_day_events) AS items,
    list(event_type ORDER BY rank) FILTER (rank <= $max_user_day_events) AS types,
    count(*) FILTER (rank > $max_user_day_events) AS n_over_day_cap
  FROM numbered
  WHERE event_date IN (SELECT unnest($partitions))
  GROUP BY event_date, user_id, number
)
SELECT session_date, substr(sha256(user_id || '|' || epoch_us(started_at)), 1, 32) AS session_id, user_id, started_at,
  ended_at, n_events, list_slice(items, 1, $max_session_events) AS item_ids,
  list_slice(types, 1, $max_session_events) AS event_types, n_events > $max_session_events AS truncated,
  greatest(n_events - $max_session_events, 0) AS n_truncated, n_over_day_cap
FROM grouped
