-- The commit that a partition's numbers come from: its newest one (the ledger's rows are numbered as they were written).
-- A partition whose newest row withdraws it (a rollback to before it existed) is not in the table any more.
with newest as (
    select *
    from {{ ref('stg_commits') }}
    qualify row_number() over (partition by asset, partition_date order by commit_id desc) = 1
)

select * from newest
where action <> 'withdraw'
