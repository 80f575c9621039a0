select * from {{ source('lake', 'ops_promotions') }}
