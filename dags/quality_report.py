"""### Quality report: what the analysts read

**Healthy when** `build/report/index.html` is of today and its first table has a row for yesterday.

**First three checks** when it is red:

1. `export` red: the API server or the tracking store did not answer; the tables keep their last version.
2. `report` red with a dbt test: the test's name says which mart and rule; `make report` runs the same by hand.
3. The page is old although all is green: an earlier DAG stopped; `maintenance` rebuilds the page every night.

**Rerun**: clear the failed task; both can be repeated at any time.

**Owner**: analytics.
"""

from dags.builder import DAILY_CHAIN, chain, module, new_dag, news

with new_dag(
    "quality_report", __doc__, schedule=news(), owner="analytics", tags=["report", DAILY_CHAIN], deadline_minutes=120
):
    export = module("export", "dags.steps.export_tables", minutes=15)
    report = module("report", "dags.steps.report", minutes=30)
    chain(export, report)
