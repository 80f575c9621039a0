with newest as (select max(run_date) as run_date from {{ ref('stg_judge_scores') }}),

told as (
    select scores.*
    from {{ ref('stg_judge_scores') }} as scores
    inner join newest on scores.run_date = newest.run_date
    where scores.reason is not null
),

-- Of the lists that have reasons the better half are the best ones.
ordered as (
    select
        lists.judge_version,
        lists.model_version,
        lists.user_id,
        lists.score,
        row_number() over (
            partition by lists.judge_version, lists.model_version order by lists.score desc, lists.user_id
        ) as place,
        count(*) over (partition by lists.judge_version, lists.model_version) as lists
    from {{ ref('int_judge_lists') }} as lists
    inner join newest on lists.run_date = newest.run_date
    inner join (select distinct judge_version, model_version, user_id from told) as named
        on lists.judge_version = named.judge_version and lists.model_version = named.model_version
        and lists.user_id = named.user_id
)

select
    told.run_date,
    told.judge_version,
    told.model_version,
    told.role,
    told.user_id,
    if(ordered.place * 2 <= ordered.lists, 'best', 'worst') as end_of_the_order,
    ordered.place,
    ordered.score as list_score,
    told.rank,
    told.item_id,
    items.title,
    told.profile,
    told.future,
    told.novelty,
    told.context,
    told.score,
    told.reason
from told
inner join ordered
    on told.judge_version = ordered.judge_version and told.model_version = ordered.model_version
    and told.user_id = ordered.user_id
left join {{ ref('dim_items') }} as items on told.item_id = items.item_id
