select
    commit_id,
    rule,
    level,
    rows_failed,
    status
from {{ source('ledger', 'rule_results') }}
