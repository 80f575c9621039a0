select
    run_date,
    judge_version,
    check_name,
    measured_on,
    value,
    lower,
    upper,
    passed,
    why,
    origin,
    run_date = max(run_date) over () as is_newest
from {{ ref('stg_judge_checks') }}
