select
    commit_id,
    asset,
    partition as partition_date,
    run_key,
    action,
    rows_in,
    rows_out,
    rows_quarantined,
    started as started_at,
    committed as committed_at
from {{ source('ledger', 'ledger_commits') }}
