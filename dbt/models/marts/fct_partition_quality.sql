with commits as (select * from {{ ref('int_latest_commits') }}),

rules as (select * from {{ ref('int_rules_by_commit') }})

select
    commits.asset,
    commits.partition_date,
    commits.rows_in,
    commits.rows_out,
    commits.rows_quarantined,
    commits.rows_in = commits.rows_out + commits.rows_quarantined as is_balanced,
    cast(coalesce(rules.rules_failed, 0) as bigint) as rules_failed,
    cast(coalesce(rules.rules_warned, 0) as bigint) as rules_warned,
    cast(coalesce(rules.rules_in_error, 0) as bigint) as rules_in_error,
    rules.failing_rules,
    coalesce(rules.rules_failed, 0) + coalesce(rules.rules_in_error, 0) + commits.rows_quarantined > 0 as has_failures,
    commits.committed_at,
    -- A partition is due when its day is over; a first load of old days is late by design and shows as such.
    date_diff('second', cast(commits.partition_date + 1 as timestamp), cast(commits.committed_at as timestamp)) / 3600.0 as lateness_hours
from commits
left join rules on commits.commit_id = rules.commit_id
