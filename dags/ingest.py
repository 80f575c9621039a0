"""### Ingest: landing files to the landed tables: `items`, `events` and those that a shop may have

Of a simulated market also its `true_` tables, which nobody who trains may read.

**Healthy when** the newest run is green and the report shows yesterday with less than 5 % of its rows in quarantine.

**First three checks** when it is red:

1. `refused` red: it names the files and days that were left out; the chain goes on without them. `landed` red: no
   day of the range could be landed, and nothing is built. Its last lines name the file, the row, the rule and what to
   do (exit code 65: data; 75: try again).
2. `python -m infra.ledger missing --asset events --from DAY --to DAY`: what is not committed; the old version is live.
3. The quarantine page of the report lists the rows that were refused and the rule that refused them.

**Rerun**: trigger with the day as partition key; a range is the key (last day) plus the parameter `from`. What is
committed with the same input is not done again, so a rerun is always safe.

**Owner**: data-engineering.
"""

from dags.builder import DAILY_CHAIN, RANGE, asset, chain, daily, heavy, new_dag, refused

with new_dag(
    "ingest",
    __doc__,
    schedule=daily(hour=3),
    owner="data-engineering",
    tags=["ingest", "nightly", DAILY_CHAIN],
    deadline_minutes=120,
):
    # One Spark process for all of it: to start and warm up another costs more than most of these tables.
    shop = ("items", "events", "judgments", "intents", "queries", "judge_corrections")
    seen = ("exposures", "hint_exposures", "searches", "bids", "chats")
    truth = ("true_people", "true_tastes", "true_requests", "true_exposures", "true_hints", "true_chats")
    tables = map(asset, (*shop, *seen, *truth))
    landed = heavy("landed", "spark_jobs", "landed", "--go-on", *RANGE, minutes=90, outlets=[*tables])
    chain(landed, refused("refused", of="landed"))
