select
    run_id,
    logged_date,
    system,
    stage,
    model,
    version,
    metric,
    slice,
    split,
    value,
    lo,
    hi,
    n,
    origin,
    reason
from {{ ref('stg_model_metrics') }}
