-- Ten bins from -1 to 1, the empty ones among them; the last one holds 1. Edges are fifths, so that a score on an edge is
-- found above it.
with binned as (
    select
        scores.run_date,
        scores.judge_version,
        scores.model_version,
        scores.role,
        least(greatest(floor(scores.score * 5), -5), 4)::bigint as bin
    from {{ ref('stg_judge_scores') }} as scores
    inner join {{ ref('int_judge_nights') }} as nights
        on scores.run_date = nights.run_date and scores.judge_version = nights.judge_version
    where scores.run_date = (select max(run_date) from {{ ref('stg_judge_scores') }})
        and scores.score is not null
        and not nights.withheld
)

select
    binned.run_date,
    binned.judge_version,
    binned.model_version,
    any_value(binned.role) as role,
    bins.bin / 5 as lower,
    (bins.bin + 1) / 5 as upper,
    count(*) filter (where binned.bin = bins.bin) as scored,
    avg((binned.bin = bins.bin)::integer) as share
from binned
cross join range(-5, 5) as bins(bin)
group by binned.run_date, binned.judge_version, binned.model_version, bins.bin
