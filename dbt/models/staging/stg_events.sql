select
    item_id,
    user_id,
    event_type,
    rating,
    event_date
from {{ source('lake', 'events') }}
