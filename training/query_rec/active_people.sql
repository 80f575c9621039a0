-- Who did anything in the days that are seen, and the last 50 things that they did up to the end of the day, oldest first,
-- as `query_samples` tells them: the item of an event, the words of a search.
WITH done AS (
  SELECT user_id, event_time AS time, event_type AS action, item_id AS content FROM events
  UNION ALL
  SELECT user_id, search_time, 'search', left(trim(regexp_replace(query, '\s+', ' ', 'g')), 120) FROM searches
),
last AS (
  SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY time DESC, action DESC, content DESC) AS back
  FROM done QUALIFY back <= 50
)
SELECT user_id, CAST(CAST($day AS DATE) + 1 AS TIMESTAMPTZ) AS as_of,
  list(CAST(date_diff('day', CAST(time AS DATE), CAST($day AS DATE) + 1) AS BIGINT) ORDER BY back DESC) AS days_ago,
  list(action ORDER BY back DESC) AS actions, list(content ORDER BY back DESC) AS contents
FROM last GROUP BY user_id ORDER BY user_id
