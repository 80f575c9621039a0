select
    item_id,
    count(*) as n_events,
    avg(rating) as mean_rating,
    min(event_date) as first_event_date,
    max(event_date) as last_event_date
from {{ ref('stg_events') }}
group by item_id
