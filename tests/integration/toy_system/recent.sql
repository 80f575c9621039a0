SELECT user_id, count(*) AS days FROM user_stats WHERE stat_date <= $day GROUP BY ALL ORDER BY ALL
