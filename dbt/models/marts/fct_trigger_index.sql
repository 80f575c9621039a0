with pairs as (select * from {{ ref('stg_trigger_queries') }}),

nights as (
    select
        index_date,
        lag(index_date) over (order by index_date) as before_date,
        index_date = max(index_date) over () as is_newest
    from (select distinct index_date from pairs) as days
),

triggers as (select distinct index_date, kind, trigger from pairs),

-- Each wording once: a log repeats its queries.
forms as (
    select query, normalised(query) as trigger from (select distinct query from {{ ref('stg_searches') }}) as wordings
),

-- Things and searches alike, by what they are looked up by.
done as (
    select event_date as day, user_id, 'item' as kind, item_id as trigger from {{ ref('stg_events') }}
    union all
    select searches.search_date, searches.user_id, 'search', forms.trigger
    from {{ ref('stg_searches') }} as searches
    inner join forms on searches.query = forms.query
),

of_late as (
    select
        nights.index_date,
        done.user_id,
        triggers.trigger is not null as is_covered
    from nights
    inner join done on done.day between nights.index_date - 6 and nights.index_date and done.trigger <> ''
    left join triggers
        on nights.index_date = triggers.index_date and done.kind = triggers.kind and done.trigger = triggers.trigger
),

covered as (
    select
        index_date,
        count(*) as done,
        avg(is_covered::int) as done_share,
        count(distinct user_id) as people,
        count(distinct user_id) filter (where is_covered) / count(distinct user_id) as people_share
    from of_late
    group by index_date
),

changed as (
    select
        nights.index_date,
        avg((earlier.query is null)::int) as churn
    from nights
    inner join pairs on nights.index_date = pairs.index_date
    left join pairs as earlier
        on nights.before_date = earlier.index_date and pairs.kind = earlier.kind and pairs.trigger = earlier.trigger
        and pairs.query = earlier.query
    where nights.before_date is not null
    group by nights.index_date
),

sizes as (
    select
        index_date,
        count(distinct (kind, trigger)) as triggers,
        count(distinct trigger) filter (where kind = 'item') as items,
        count(distinct query) as queries,
        count(*) as pairs,
        any_value(model_version) as model_version,
        any_value(ranker_version) as ranker_version
    from pairs
    group by index_date
),

newest as (select max(event_date) as day from {{ ref('stg_events') }})

select
    sizes.index_date,
    sizes.triggers,
    sizes.items,
    sizes.queries,
    sizes.pairs,
    coalesce(covered.done, 0) as done,
    covered.done_share,
    coalesce(covered.people, 0) as people,
    covered.people_share,
    changed.churn,
    date_diff('day', nights.before_date, sizes.index_date) as days_since_before,
    if(nights.is_newest, greatest(date_diff('day', sizes.index_date, newest.day), 0), null) as days_behind,
    sizes.model_version,
    sizes.ranker_version,
    commits.committed_at as published_at
from sizes
inner join nights on sizes.index_date = nights.index_date
cross join newest
left join covered on sizes.index_date = covered.index_date
left join changed on sizes.index_date = changed.index_date
left join {{ ref('int_latest_commits') }} as commits
    on sizes.index_date = commits.partition_date and commits.asset = 'trigger_queries'
