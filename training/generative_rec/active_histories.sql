-- Who is recommended to, and after what: the users with an event in the days that are seen, each with the history up to
-- the end of the newest of them. The history of a user's last day ends before that day: the day's own events complete
-- it, in the order of `histories`.
WITH last AS (SELECT user_id, max(history_date) AS day FROM histories GROUP BY ALL),
today AS (
  SELECT last.user_id, list(item_id ORDER BY event_time, item_id, event_type) AS items
  FROM last JOIN events ON events.user_id = last.user_id AND events.event_date = last.day GROUP BY ALL
)
SELECT last.user_id, list_concat(histories.item_ids, coalesce(today.items, [])) AS item_ids
FROM last JOIN histories ON histories.user_id = last.user_id AND histories.history_date = last.day
LEFT JOIN today ON today.user_id = last.user_id ORDER BY ALL
