"""### Build samples: events to sessions, histories, statistics, profiles, and the samples of all systems

**Healthy when** a run is green for every partition that `ingest` committed; the samples are audited before they count.

**First three checks** when it is red:

1. A failed leakage audit (exit code 65) names the sample, its `as_of` and the row from the future: do not train on it.
2. `python -m infra.ledger reconcile`: rows in must be rows out plus quarantined, for every partition.
3. A Spark error about memory: run shorter ranges (`from`), the result is the same.

**Rerun**: clear the failed task, or trigger with the same partition key; what is committed with the same inputs is
skipped.

**Owner**: data-engineering.
"""

from dags.builder import DAILY_CHAIN, RANGE, after, asset, heavy, is_read, new_dag

with new_dag(
    "build_samples",
    __doc__,
    schedule=after("events"),
    owner="data-engineering",
    tags=["samples", DAILY_CHAIN],
    deadline_minutes=180,
):
    # One Spark process for all of it: to start and warm up another costs as much as two of these tables.
    known = ("sessions", "histories", "user_stats", "item_stats", "query_stats", "user_profiles")
    # Samples, and the training set that features are joined to them for.
    samples = {
        "next_item_samples": "next_item_training_set",
        "judge_pairs": "judge_pairs",
        "judge_examples": "judge_training_set",
        "query_samples": "query_samples",
        "hint_samples": "hint_training_set",
    }
    built = (*known, *(table for table, joined in samples.items() if is_read(table, joined)))
    heavy("samples", "spark_jobs", *built, *RANGE, minutes=150, outlets=[*map(asset, built)])
