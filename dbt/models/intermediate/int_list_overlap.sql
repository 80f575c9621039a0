-- Of the first ten places of a version's lists, the share that the day's other version has among its first ten for the
-- same user. A day on which one version made lists has no row.
with top as (
    select *
    from {{ ref('stg_recommendations') }}
    where rank <= 10
),

compared as (
    select run_date
    from top
    group by run_date
    having count(distinct model_version) > 1
)

select
    own.run_date,
    own.model_version,
    count(other.item_id) / count(*) as overlap_at_10
from top as own
inner join compared on own.run_date = compared.run_date
left join top as other
    on
        own.run_date = other.run_date
        and own.user_id = other.user_id
        and own.item_id = other.item_id
        and own.model_version <> other.model_version
group by own.run_date, own.model_version
