with sliced as (
    select
        scores.*,
        lists.order_agreement,
        unnest([
            'all',
            case when scores.rank <= 5 then 'rank=1-5' when scores.rank <= 10 then 'rank=6-10' else 'rank=11+' end,
            case when scores.history_length <= 2 then 'history=0-2' when scores.history_length <= 9 then 'history=3-9'
                else 'history=10+' end
        ]) as slice
    from {{ ref('stg_judge_scores') }} as scores
    left join {{ ref('int_judge_lists') }} as lists
        on scores.run_date = lists.run_date and scores.judge_version = lists.judge_version
        and scores.model_version = lists.model_version and scores.user_id = lists.user_id
),

-- Over all rows that were submitted: a failed one counts as the least that can be said.
by_slice as (
    select
        run_date,
        judge_version,
        model_version,
        slice,
        any_value(role) as role,
        count(*) as submitted,
        count(score) as scored,
        count(*) - count(score) as failed,
        avg(coalesce(profile, -1)) as profile,
        avg(coalesce(future, 0)) as future,
        avg(coalesce(novelty, 0)) as novelty,
        if(count(context) = 0, null, avg(coalesce(context, 0))) as context,
        avg(coalesce(score, -1)) as score,
        -- Each list once, whatever its length; a slice of places has no order of its own.
        if(slice like 'rank=%', null, avg(order_agreement) filter (where rank = 1)) as order_agreement
    from sliced
    group by run_date, judge_version, model_version, slice
),

told as (
    select
        by_slice.run_date,
        by_slice.judge_version,
        by_slice.model_version,
        by_slice.role,
        by_slice.slice,
        by_slice.submitted,
        by_slice.scored,
        by_slice.failed,
        nights.withheld,
        if(nights.withheld, null, by_slice.profile) as profile,
        if(nights.withheld, null, by_slice.future) as future,
        if(nights.withheld, null, by_slice.novelty) as novelty,
        if(nights.withheld, null, by_slice.context) as context,
        if(nights.withheld, null, by_slice.score) as score,
        by_slice.order_agreement
    from by_slice
    inner join {{ ref('int_judge_nights') }} as nights
        on by_slice.run_date = nights.run_date and by_slice.judge_version = nights.judge_version
)

-- Drift is of one judge: the scores of two judges are no two measures of one thing.
select
    *,
    score - avg(score) over (
        partition by judge_version, role, slice
        order by run_date range between interval 7 days preceding and interval 1 day preceding
    ) as drift
from told
