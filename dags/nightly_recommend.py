"""### Nightly recommendations: the top 20 of every active user, by champion and challenger

**Healthy when** the newest run is green and `recommendations` has a partition of the newest day of data. Before the
first promotion its rows are a baseline's; green without rows, as the log then says, before the first evaluation and
where no user was active.

**First three checks** when it is red:

1. The log ends with the stage's own error; exit code 65 with `histories`: run `build_samples` for the day first. With
   `was not published`: more than 1 % of the rows broke the contract of the table; the message names a file with them.
2. Over its time limit: the log has lists/s and the time left. What is decoded stays, so the next try goes on there.
3. A registered version that cannot be loaded, or is gone from MLflow: `python -m registry history`, then roll back to
   the champion before it, or promote another one with an override.

**Rerun**: clear the task, or trigger with the day as the partition key. Shards that are decoded are not decoded again.

**Owner**: ml-engineering.
"""

from dags.builder import CHALLENGER, DECISION, PROFILE, RECOMMENDATIONS, SAMPLES, after, new_dag, nightly_task

# By assets, not by the clock: new histories and new versions are what changes the lists, whenever the chain gets there.
# The histories come first, so that a night whose training fails still has its lists, by the champion of before.
_TRIGGERS = (DECISION,) if PROFILE.airflow.approve_by_flag else (SAMPLES, CHALLENGER, DECISION)

with new_dag(
    "nightly_recommend",
    __doc__,
    schedule=after(*_TRIGGERS),
    owner="ml-engineering",
    tags=["registry", "nightly"],
    deadline_minutes=240,
):
    nightly_task("generative_rec", outlet=RECOMMENDATIONS)
