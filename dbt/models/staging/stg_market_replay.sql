select
    run_date,
    model_version,
    metric,
    role,
    people,
    days,
    value,
    random,
    oracle,
    closed,
    against,
    difference,
    lo,
    hi,
    parameters_hash,
    seed
from {{ source('lake', 'market_replay') }}
