select
    index_date,
    kind,
    trigger,
    place,
    query,
    people,
    model_version,
    ranker_version
from {{ source('lake', 'trigger_queries') }}
