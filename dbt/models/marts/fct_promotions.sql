select
    decision_id,
    "at" as decided_at,
    who,
    model,
    from_version,
    to_version,
    decision,
    override,
    reason,
    gate_passed,
    market,
    -- Null for the current champion; a rejection never makes one.
    case when decision in ('promote', 'rollback') then lead("at") over (
        partition by model, decision in ('promote', 'rollback') order by decision_id
    ) end as champion_until
from {{ ref('stg_promotions') }}
