select
    run_date,
    setting,
    statistic,
    kind,
    max(value) filter (where source = 'market') as market,
    max(value) filter (where source = 'shop') as shop,
    -- What the published logs span, and how far the market may be from it.
    min(value) filter (where verdict = 'reference') as lowest,
    max(value) filter (where verdict = 'reference') as highest,
    count(value) filter (where verdict = 'reference') as logs,
    string_agg(source || ', ' || origin, '; ' order by source) filter (where verdict = 'reference') as published,
    max(low) as low,
    max(high) as high,
    max(verdict) filter (where source = 'market') as verdict,
    max(verdict) filter (where source = 'shop') as shop_verdict,
    max(takes) filter (where source = 'market') as takes,
    max(takes) filter (where source = 'shop') as shop_takes,
    max(parameters_hash) as parameters_hash,
    max(seed) as seed,
    'simulated' as origin
from {{ ref('stg_market_validity') }}
group by run_date, setting, statistic, kind
