select
    run_date,
    setting,
    statistic,
    source,
    kind,
    origin,
    value,
    low,
    high,
    verdict,
    takes,
    parameters_hash,
    seed
from {{ source('lake', 'market_validity') }}
