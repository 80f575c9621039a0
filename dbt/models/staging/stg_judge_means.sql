select
    run_date,
    judge_version,
    model_version,
    aspect,
    role,
    submitted,
    scored,
    withheld,
    raw,
    corrected,
    lo,
    hi,
    gold_cases
from {{ source('lake', 'judge_means') }}
