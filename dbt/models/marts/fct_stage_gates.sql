-- Runs of one kind differ from the first digit of their names on: training runs by day and data, nights and jobs by day.
with gates as (select * from {{ ref('stg_stage_gates') }}),

newest as (
    select
        *,
        -- A stage that was run again with another config has an older record in its folder.
        row_number() over (partition by system, run, stage order by finished_at desc, run_id desc) = 1 as is_last,
        max(finished_at) over (partition by system, run) as run_finished_at
    from gates
)

select
    run_id,
    logged_date,
    system,
    run,
    stage,
    finished_at,
    accepted,
    reason,
    note,
    metric,
    start,
    before,
    after,
    lower,
    origin,
    is_last and dense_rank() over (
        partition by system, regexp_replace(run, '[0-9].*$', '') order by run_finished_at desc, run desc
    ) = 1 as is_newest
from newest
