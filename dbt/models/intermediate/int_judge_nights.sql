-- One that has not passed withholds the scores of the night.
select
    run_date,
    judge_version,
    bool_or(not passed) as withheld,
    string_agg(why, '; ' order by check_name) as why
from {{ ref('stg_judge_checks') }}
group by run_date, judge_version
