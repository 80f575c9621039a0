-- Whose lists of the night are judged: a row for each user who has some, with all of these lists as columns side by side,
-- and the state as of the end of the day, as the judge's examples have it: the last 20 events before 00:00 UTC of the day
-- after, with stars, and the profile of then. Whoever is recommended to has an event in the days that are seen.
WITH lists AS (
  SELECT user_id,
    list(item_id ORDER BY model_version, rank) AS listed, list(model_version ORDER BY model_version, rank) AS versions,
    list(role ORDER BY model_version, rank) AS roles, list(rank ORDER BY model_version, rank) AS ranks
  FROM recommendations WHERE run_date = $day GROUP BY ALL
),
last AS (
  SELECT user_id, max(history_date) AS day FROM histories WHERE user_id IN (SELECT user_id FROM lists) GROUP BY ALL
),
today AS (
  SELECT last.user_id, list(item_id ORDER BY event_time, item_id, event_type) AS items,
    list(rating ORDER BY event_time, item_id, event_type) AS ratings
  FROM last JOIN events ON events.user_id = last.user_id AND events.event_date = last.day GROUP BY ALL
),
told AS (
  SELECT user_id, arg_max(profile_text, available_at) AS profile FROM user_profiles
  WHERE user_id IN (SELECT user_id FROM lists) GROUP BY ALL
)
SELECT lists.*, CAST($day AS DATE) + 1 AS as_of, profile,
  list_slice(list_concat(coalesce(histories.item_ids, []), coalesce(today.items, [])), -20, -1) AS item_ids,
  list_slice(list_concat(coalesce(histories.ratings, []), coalesce(today.ratings, [])), -20, -1) AS ratings
FROM lists LEFT JOIN last USING (user_id)
LEFT JOIN histories ON histories.user_id = last.user_id AND histories.history_date = last.day
LEFT JOIN today ON today.user_id = lists.user_id LEFT JOIN told ON told.user_id = lists.user_id ORDER BY lists.user_id
