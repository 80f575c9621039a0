with items as (select item_id, source from {{ ref('dim_items') }}),

had as (
    select user_id, item_id, min(event_date) as first_event_date
    from {{ ref('stg_events') }}
    group by user_id, item_id
),

places as (
    select
        lists.*,
        items.source,
        coalesce(had.first_event_date <= lists.run_date, false) as is_own
    from {{ ref('stg_recommendations') }} as lists
    left join items on lists.item_id = items.item_id
    left join had on lists.user_id = had.user_id and lists.item_id = had.item_id
),

by_version as (
    select
        run_date,
        model_version,
        any_value(role) as role,
        count(distinct user_id) as users,
        count(*) / count(distinct user_id) as mean_list_length,
        count(distinct item_id) as items,
        count(distinct item_id) filter (where source is null) as items_not_in_catalogue,
        count(*) filter (where is_own) / count(*) as own_share
    from places
    group by run_date, model_version
),

-- Catalogues of other shops stand beside the one that people act on; nothing of them can be recommended.
catalogues as (
    select
        named.run_date,
        named.model_version,
        count(*) as catalogue_items
    from (select distinct run_date, model_version, source from places where source is not null) as named
    inner join items on named.source = items.source
    group by named.run_date, named.model_version
),

-- The newest ids up to each day: what has none there, a model cannot recommend.
newest_codes as (
    select
        by_version.run_date,
        max(codes.run_date) as codes_date
    from (select distinct run_date from by_version) as by_version
    inner join {{ ref('stg_item_codes') }} as codes on by_version.run_date >= codes.run_date
    group by by_version.run_date
),

coded as (
    select
        named.run_date,
        named.model_version,
        count(*) as coded_items
    from (select distinct run_date, model_version, source from places where source is not null) as named
    inner join items on named.source = items.source
    inner join newest_codes on named.run_date = newest_codes.run_date
    inner join {{ ref('stg_item_codes') }} as codes
        on newest_codes.codes_date = codes.run_date and items.item_id = codes.item_id
    group by named.run_date, named.model_version
)

select
    by_version.run_date,
    by_version.model_version,
    by_version.role,
    by_version.users,
    by_version.mean_list_length,
    by_version.items,
    by_version.items_not_in_catalogue,
    (by_version.items - by_version.items_not_in_catalogue) / catalogues.catalogue_items as coverage,
    if(by_version.role = 'baseline', null, catalogues.catalogue_items - coalesce(coded.coded_items, 0))
        as items_without_code,
    by_version.own_share,
    overlap.overlap_at_10,
    commits.committed_at as published_at
from by_version
left join catalogues
    on by_version.run_date = catalogues.run_date and by_version.model_version = catalogues.model_version
left join coded
    on by_version.run_date = coded.run_date and by_version.model_version = coded.model_version
left join {{ ref('int_list_overlap') }} as overlap
    on by_version.run_date = overlap.run_date and by_version.model_version = overlap.model_version
left join {{ ref('int_latest_commits') }} as commits
    on by_version.run_date = commits.partition_date and commits.asset = 'recommendations'
