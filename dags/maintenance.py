"""### Maintenance: expiry, old stage folders, verification, reconciliation, stuck attempts, Airflow's own history

**Healthy when** the newest run is green. It repairs nothing: it deletes what has expired and says what is wrong.

**First three checks** when it is red:

1. `reconcile` or `verify` red names the partition; `python -m infra.lake history TABLE`, then `rollback`, goes back.
2. `stuck_attempts` red: a task died in the middle; rerun its partition, a stale attempt can never publish.
3. `expire` or `clean_stages` red: another writer was at work, or MLflow is down; the retry is enough.

**Rerun**: clear the failed task; every task can be repeated at any time.

**Owner**: data-engineering.
"""

from dags.builder import chain, module, new_dag, nightly

with new_dag(
    "maintenance",
    __doc__,
    schedule=nightly(hour=5),
    owner="data-engineering",
    tags=["operations", "nightly"],
    deadline_minutes=180,
):
    expire = module("expire", "infra.lake", "expire", minutes=60)
    verify = module("verify", "infra.lake", "verify", minutes=60)
    reconcile = module("reconcile", "infra.ledger", "reconcile", minutes=15)
    stuck = module("stuck_attempts", "dags.steps.stuck_attempts", minutes=10)
    stages = module("clean_stages", "dags.steps.clean_stages", minutes=60)
    airflow = module("clean_airflow", "dags.steps.clean_airflow", minutes=30)
    report = module("report", "dags.steps.report", minutes=30)  # a day whose chain stopped early must show in it
    chain(expire, [verify, reconcile, stuck, stages, airflow, report])
