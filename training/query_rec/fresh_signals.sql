-- The signals for which no list was written yet, with the newest row of the person's hints: the lists that theirs goes
-- before. Of one person in the order of time.
WITH newest AS (
  SELECT * FROM user_hints QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY signal_time DESC, signal_id) = 1
)
SELECT fresh.user_id, fresh.signal_id, fresh.signal_date, fresh.signal_time, fresh.action, fresh.content, fresh.as_of,
  fresh.behaviour_days_ago AS days_ago, fresh.behaviour_actions AS actions, fresh.behaviour_contents AS contents,
  coalesce(newest.queries, []) AS queries, coalesce(newest.sources, []) AS sources, coalesce(newest.lists, []) AS lists,
  coalesce(newest.trigger_actions, []) AS trigger_actions, coalesce(newest.trigger_contents, []) AS trigger_contents
FROM (SELECT * FROM signals ANTI JOIN user_hints USING (user_id, signal_id)) AS fresh LEFT JOIN newest USING (user_id)
ORDER BY fresh.user_id, fresh.signal_time, fresh.signal_id
