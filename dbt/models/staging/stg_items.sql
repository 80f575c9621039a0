select
    item_id,
    source,
    title,
    brand,
    category,
    snapshot_date
from {{ source('lake', 'items') }}
