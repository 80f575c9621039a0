-- `outcome` says what came of the rows that broke the rule. An expectation of level fail stops a partition: where one is on
-- record as broken all the same, no version was there to keep, and the partition's good rows stand in.
select
    commit_id,
    rule,
    level,
    rows_failed,
    status,
    case
        when status in ('ok', 'error') then status
        when level = 'warn' then 'warn'
        when level = 'drop' then 'set aside'
        when rule like 'expectation: %' then 'stands in'
        else 'quarantine'
    end as outcome
from {{ source('ledger', 'rule_results') }}
