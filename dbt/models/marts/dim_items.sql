with newest as (
    select *
    from {{ ref('stg_items') }}
    qualify row_number() over (partition by item_id order by snapshot_date desc) = 1
),

activity as (select * from {{ ref('int_item_activity') }})

select
    newest.item_id,
    newest.source,
    newest.title,
    newest.brand,
    newest.category,
    newest.snapshot_date,
    cast(coalesce(activity.n_events, 0) as bigint) as n_events,
    activity.mean_rating,
    activity.first_event_date,
    activity.last_event_date
from newest
left join activity on newest.item_id = activity.item_id
