with newest as (select max(run_date) as run_date from {{ ref('stg_recommendations') }}),

had as (
    select
        events.user_id,
        events.item_id
    from {{ ref('stg_events') }} as events
    cross join newest
    where events.event_date <= newest.run_date
    group by events.user_id, events.item_id
)

select
    lists.run_date,
    lists.user_id,
    lists.model_version,
    lists.role,
    lists.rank,
    lists.item_id,
    items.title,
    had.item_id is not null as is_own,
    lists.log_prob,
    lists.reasons,
    lists.reason_scores
from {{ ref('stg_recommendations') }} as lists
inner join newest on lists.run_date = newest.run_date
left join {{ ref('dim_items') }} as items on lists.item_id = items.item_id
left join had on lists.user_id = had.user_id and lists.item_id = had.item_id
