select * from {{ source('lake', 'stage_gates') }}
