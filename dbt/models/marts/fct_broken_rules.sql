with commits as (select * from {{ ref('int_latest_commits') }}),

rules as (select * from {{ ref('stg_rule_results') }})

select
    commits.asset,
    commits.partition_date,
    rules.rule,
    coalesce(rules.outcome, 'quarantine') as outcome,
    coalesce(rules.rows_failed, commits.rows_quarantined) as rows_failed,
    commits.rows_in,
    commits.rows_quarantined
from commits
left join rules on commits.commit_id = rules.commit_id and rules.status <> 'ok'
where rules.rule is not null or commits.rows_quarantined > 0
