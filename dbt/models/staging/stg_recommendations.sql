select
    run_date,
    user_id,
    model_version,
    rank,
    item_id,
    log_prob,
    reasons,
    reason_scores,
    role
from {{ source('lake', 'recommendations') }}
