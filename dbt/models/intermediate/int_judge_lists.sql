-- Spearman's rank correlation of the order that the model gave a list and the order of the judge's scores; ties share the
-- mean of their places. Of lists that were scored whole; null where all scores are the same.
with places as (
    select
        run_date,
        judge_version,
        model_version,
        user_id,
        score,
        rank() over (partition by run_date, judge_version, model_version, user_id order by rank) as own_place,
        rank() over (partition by run_date, judge_version, model_version, user_id order by score desc)
        + (count(*) over (partition by run_date, judge_version, model_version, user_id, score) - 1) / 2 as judged_place
    from {{ ref('stg_judge_scores') }}
)

select
    run_date,
    judge_version,
    model_version,
    user_id,
    avg(score) as score,
    if(count(distinct score) > 1, corr(own_place, judged_place), null) as order_agreement
from places
group by run_date, judge_version, model_version, user_id
having count(*) = count(score)
