"""### Promote: a person says whether the challenger becomes the champion

**Healthy when** a run is green, whatever the answer was; `python -m registry history` shows the decision.

**First three checks** when it is red:

1. `gate_report` red: the model was not registered; look at `register` of the training DAG.
2. `approve` waits: that is its job. Answer under *Required Actions*; after a day without an answer it is a rejection.
3. `decide` red: the registry refused and says why (for instance because the champion has changed meanwhile).

**Rerun**: clear `gate_report` to judge the present challenger again. Decisions are appended, never changed.

**Owner**: ml-engineering.
"""

from dags.builder import CHALLENGER, DECISION, after, approval, chain, module, new_dag

_REPORT = "ti.xcom_pull(task_ids='gate_report')"
_ANSWER = "ti.xcom_pull(task_ids='approve')"
_VERSION = f"{{{{ {_REPORT}['version'] or '' }}}}"

with new_dag(
    "promote", __doc__, schedule=after(CHALLENGER), owner="ml-engineering", tags=["registry"], deadline_minutes=720
):
    report = module("gate_report", "dags.steps.gate_report", "--model", "generative_rec", minutes=10)
    question = (f"Promote {{{{ {_REPORT}['title'] }}}}?", f"{{{{ {_REPORT}['text'] }}}}", _VERSION)
    approve = approval("approve", *question)
    answer = ("--answer", f"{{{{ {_ANSWER}['chosen_options'][0] }}}}")
    form = ("--form", f"{{{{ {_ANSWER}['params_input'] | tojson }}}}")
    who = ("--who", f"{{{{ ({_ANSWER}['responded_by_user'] or {{}}).get('name', 'nobody') }}}}")
    facts = ("--model", "generative_rec", "--version", _VERSION, *answer, *form, *who)
    decide = module("decide", "dags.steps.decide", *facts, minutes=10, outlets=[DECISION])
    chain(report, approve, decide)
