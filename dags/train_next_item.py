"""### Train the next-item model: the stages of `training/generative_rec/pipeline.yaml`, then register and gate

**Healthy when** a run is green. A model that fails its gate is a green run too: it is registered with its gate report,
and cannot be promoted without an override.

**First three checks** when it is red:

1. The log ends with the stage's own error; `<home>/stages/<system>/<run>/<stage>` has its metrics and its config.
2. Exit code 65: the training set does not fit, look at `features`. 75: preempted, the retry goes on.
3. A stage over its time limit: compare the rate in `metrics.jsonl` with the last good run.

**Rerun**: clear the failed stage. Stages that are done with the same spec are not run again; an interrupted one goes on
from its checkpoint.

**Owner**: ml-engineering.
"""

from dags.builder import CHALLENGER, TRAINING_SET, after, training_dag

training_dag(__doc__, "generative_rec", schedule=after(TRAINING_SET), outlet=CHALLENGER, deadline_minutes=240)
