"""### Market: the night's lists, played to simulated people, and how like real logs these people are

**Healthy when** a run is green for every night that has lists.

**First three checks** when it is red:

1. *The two policies do not serve the same users*: a job of the night stopped half way; rerun `nightly_recommend`.
2. *A policy shows items that the shop does not have*: the catalogue was replaced after the lists were made.
3. A Spark error about memory: play to fewer people (`CONFIG` of `spark_jobs/market_replay.py`, `market_validity.py`).

**Rerun**: clear the failed task, or trigger with the same partition key. The same lists have the same figures.

**Owner**: ml-engineering.
"""

from dags.builder import DAILY_CHAIN, PLAYED, REPLAY, VALIDITY, after, asset, lists_of_jobs, new_dag, replayed

if PLAYED in lists_of_jobs():  # else there is nothing to play
    with new_dag(
        "market",
        __doc__,
        schedule=after(PLAYED),
        owner="ml-engineering",
        tags=["nightly", DAILY_CHAIN],
        deadline_minutes=120,
    ):
        # A run of many days has lists for its last one alone.
        tables = (REPLAY, VALIDITY)
        replayed(*tables, outlets=[asset(table) for table in tables])
