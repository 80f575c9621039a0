"""### Features: Feast definitions, online rows, and the point-in-time training sets

**Healthy when** a run is green: `apply` found the registry as defined, `materialize` read back every row that it wrote.

**First three checks** when it is red:

1. `materialize` names the view, the rows expected and the rows found online; a rerun for the same range repairs it.
2. `apply` finds other objects than it wrote: somebody else writes the registry; only this DAG may.
3. `training_set`, `judge_training_set` or `hint_training_set` fails on a leak (exit code 65): a feature row of a later
   day than `as_of` was joined.

**Rerun**: trigger with the same partition key. Materialisation is by explicit [start, end) and can be repeated.

**Owner**: ml-engineering.
"""

from dags.builder import DAILY_CHAIN, RANGE, after, asset, chain, heavy, is_read, module, new_dag

with new_dag(
    "features",
    __doc__,
    schedule=after("user_profiles"),
    owner="ml-engineering",
    tags=["features", DAILY_CHAIN],
    deadline_minutes=120,
):
    apply = module("apply", "feature_store", "apply", minutes=15)
    materialize = module("materialize", "feature_store", "materialize", *RANGE, minutes=30)
    chain(apply, materialize)
    for table in ("next_item_training_set", "judge_training_set", "hint_training_set"):
        if is_read(table):
            name = table.removeprefix("next_item_")
            join = ("feature_store", "training-set", "--table", table, *RANGE)
            chain(materialize, heavy(name, *join, minutes=30, outlets=[asset(table)]))
