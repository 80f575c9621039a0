-- Rule results folded to one row per commit. A rule that raised has judged nothing: it is in error, and not failed too.
-- A partition is committed only where what its rules of level fail refused is in quarantine.
select
    commit_id,
    sum(case when status = 'failed' and level = 'fail' then 1 else 0 end) as rules_failed,
    sum(case when status = 'failed' and level = 'warn' then 1 else 0 end) as rules_warned,
    sum(case when status = 'error' then 1 else 0 end) as rules_in_error,
    string_agg(rule || ' (' || outcome || ')', ', ' order by rule) filter (where status <> 'ok') as failing_rules
from {{ ref('stg_rule_results') }}
group by commit_id
