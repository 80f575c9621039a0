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
    seed,
    'simulated' as origin,
    case
        when against is null then null
        when lo <= 0 and hi >= 0 then 'no difference shown'
        when (difference > 0) = (metric <> 'leavers') then 'better'
        else 'worse'
    end as verdict
from {{ ref('stg_market_replay') }}
