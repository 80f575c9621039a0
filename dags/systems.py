"""The DAGs of every system, from its declaration: its training run, its jobs, and the promotion of each of its models.
And the market, where a system makes lists that it can play.

Triage notes of trainings and jobs are the `notes` of `training/<system>/pipeline.yaml`.
"""

from dags.builder import (
    DAILY_CHAIN,
    PLAYED,
    REPLAY,
    VALIDITY,
    after,
    asset,
    job_dag,
    lists_of_jobs,
    new_dag,
    pipelines,
    promotion_dag,
    replayed,
    training_dag,
)

PROMOTION = """### Promote {model}: a person says whether the challenger becomes the champion

**Healthy when** a run is green, whatever the answer was; `python -m registry history` shows the decision.

**First three checks** when it is red:

1. `gate_report` red: the model was not registered; look at `register` of the training DAG.
2. `approve` waits: that is its job. Answer under *Required Actions*; after a day without an answer it is a rejection.
3. `decide` red: the registry refused and says why (for instance because the champion has changed meanwhile).

Where the simulated market plays the model's lists, `recommend`, `replay` and `score` come first: the challenger's
lists, played and judged beside the champion's. A red one stops nothing: the rules of market or judge are then `not
played yet` or `not judged yet`, which the gate file lets pass or not. They are held again when the answer comes.

**Rerun**: clear `gate_report` to check the present challenger again, `recommend` to play it again before. Decisions are
appended, never changed.

**Owner**: ml-engineering.
"""

MARKET = """### Market: the night's lists, played to simulated people, and how like real logs these people are

**Healthy when** a run is green for every night that has lists.

**First three checks** when it is red:

1. *The two policies do not serve the same users*: a job of the night stopped half way; rerun `nightly_recommend`.
2. *A policy shows items that the shop does not have*: the catalogue was replaced after the lists were made.
3. A Spark error about memory: play to fewer people (`CONFIG` of `spark_jobs/market_replay.py`, `market_validity.py`).

**Rerun**: clear the failed task, or trigger with the same partition key. The same lists have the same figures.

**Owner**: ml-engineering.
"""

for pipeline in pipelines():
    training_dag(pipeline)
    for model in pipeline.models:
        promotion_dag(PROMOTION, model)
    for job in pipeline.jobs:
        job_dag(pipeline, job)

if PLAYED in lists_of_jobs():  # else there is nothing to play
    with new_dag(
        "market",
        MARKET,
        schedule=after(PLAYED),
        owner="ml-engineering",
        tags=["nightly", DAILY_CHAIN],
        deadline_minutes=120,
    ):
        # A run of many days has lists for its last one alone.
        tables = (REPLAY, VALIDITY)
        replayed(*tables, outlets=[asset(table) for table in tables])
