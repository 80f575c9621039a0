select
    run_date,
    item_id
from {{ source('lake', 'item_codes') }}
