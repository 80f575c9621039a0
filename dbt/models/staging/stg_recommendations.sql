select
    run_date,
    user_id,
    model_version,
    rank,
    item_id,
    role
from {{ source('lake', 'recommendations') }}
