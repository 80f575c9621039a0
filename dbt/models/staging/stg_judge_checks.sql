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
    origin
from {{ source('lake', 'judge_checks') }}
