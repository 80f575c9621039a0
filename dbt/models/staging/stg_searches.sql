select
    search_date,
    user_id,
    source,
    query
from {{ source('lake', 'searches') }}
