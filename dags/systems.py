"""The DAGs of every system, from its declaration: its training run, its jobs, and the promotion of each of its models.

Triage notes of trainings and jobs are the `notes` of `training/<system>/pipeline.yaml`.
"""

from dags.builder import job_dag, pipelines, promotion_dag, training_dag

PROMOTION = """### Promote {model}: a person says whether the challenger becomes the champion

**Healthy when** a run is green, whatever the answer was; `python -m registry history` shows the decision.

**First three checks** when it is red:

1. `gate_report` red: the model was not registered; look at `register` of the training DAG.
2. `approve` waits: that is its job. Answer under *Required Actions*; after a day without an answer it is a rejection.
3. `decide` red: the registry refused and says why (for instance because the champion has changed meanwhile).

Where the simulated market plays the model's lists, `recommend` and `replay` come first: the challenger's lists, played
beside the champion's. A red one stops nothing: the rules of the market are then `not played yet`, which the gate file
lets pass or not. They are held again when the answer comes.

**Rerun**: clear `gate_report` to check the present challenger again, `recommend` to play it again before. Decisions are
appended, never changed.

**Owner**: ml-engineering.
"""

for pipeline in pipelines():
    training_dag(pipeline)
    for model in pipeline.models:
        promotion_dag(PROMOTION, model)
    for job in pipeline.jobs:
        job_dag(pipeline, job)
