select
    dag_id,
    run_id,
    task_id,
    try_number,
    state,
    partition_key,
    queued_at,
    started_at,
    ended_at,
    queue_seconds,
    run_seconds,
    run_date
from {{ ref('stg_task_instances') }}
