"""### Align3GR: the stages of `training/generative_rec/pipeline.yaml` from codes to preferences, then register and gate

**Healthy when** a run is green. A stage that is left out is green (`gate.json` in its folder and the report say why):
a rung by its own gate, codes that collide or lie idle, all that a shop is too small for. So is a model that fails the
registry's gate: it is registered with the report, and promoted by an override alone.

**First three checks** when it is red:

1. The log ends with the stage's own error; `<home>/stages/<system>/<run>/<stage>` has its metrics and its config.
2. Exit code 65: the training set does not fit, look at `features`; at `register`, the champion is gone from MLflow.
   75: preempted, the retry goes on.
3. A stage over its time limit: compare the rate in `metrics.jsonl` with the last good run.

**Rerun**: clear the failed stage and those after it. Stages that are done with the same spec are not run again; an
interrupted one goes on from its checkpoint.

**Owner**: ml-engineering.
"""

from dags.builder import CHALLENGER, TRAINING_SET, after, training_dag

training_dag(__doc__, "generative_rec", schedule=after(TRAINING_SET), outlet=CHALLENGER, deadline_minutes=240)
