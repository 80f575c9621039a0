select
    run_date,
    judge_version,
    model_version,
    role,
    aspect,
    submitted,
    scored,
    submitted - scored as failed,
    withheld,
    raw,
    corrected,
    lo,
    hi,
    gold_cases,
    run_date = max(run_date) over () as is_newest
from {{ ref('stg_judge_means') }}
