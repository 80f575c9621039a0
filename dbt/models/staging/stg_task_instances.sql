select * from {{ source('lake', 'ops_task_instances') }}
