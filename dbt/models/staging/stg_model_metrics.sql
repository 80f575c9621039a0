select * from {{ source('lake', 'ops_model_metrics') }}
