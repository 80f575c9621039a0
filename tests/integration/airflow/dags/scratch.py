"""### DAGs for tests of the real scheduler

What they do goes to the folder `$PLUMBLINE_TEST_FOLDER`.
"""

import os
from pathlib import Path

from dags.builder import RANGE, TODAY, after, approval, asset, chain, command, daily, new_dag

FOLDER = Path(os.environ["PLUMBLINE_TEST_FOLDER"])
FACTS = {"owner": "data-engineering", "tags": ["operations"], "deadline_minutes": 60}


def code(name: str) -> str:
    """A command that ends with the exit codes in `<folder>/<name>`, one per try, and with 0 when they are used up."""
    return (
        f"import pathlib, sys; p = pathlib.Path({str(FOLDER / name)!r}); left = p.read_text().split()\n"
        "p.write_text(' '.join(left[1:])); sys.exit(int(left[0]) if left else 0)"
    )


def note(name: str) -> str:
    """A command that writes its arguments as one line of a file of its own."""
    return (
        f"import pathlib, sys, uuid; f = pathlib.Path({str(FOLDER / name)!r}); f.mkdir(exist_ok=True)\n"
        "(f / uuid.uuid4().hex).write_text(' '.join(sys.argv[1:]))"
    )


with new_dag("retry_classes", __doc__, schedule=None, **FACTS):
    for kind in ("transient", "preempted", "data", "bug"):
        command(kind, "-c", code(kind), minutes=1, retry="preempted")

with new_dag("root", __doc__, schedule=daily(hour=3), **FACTS) as root:
    command("emit", "-c", "pass", minutes=1, outlets=[asset("events")])
root.max_active_runs = 8

with new_dag("leaf", __doc__, schedule=after("events"), **FACTS) as leaf:
    command("note", "-c", note("ranges"), *RANGE, minutes=1)
leaf.max_active_runs = 8

with new_dag("clock", __doc__, schedule=None, **FACTS):
    command("note", "-c", note("todays"), *TODAY, minutes=1)

with new_dag("ask", __doc__, schedule=None, **FACTS):
    _answer = "ti.xcom_pull(task_ids='approve')"
    approve = approval("approve", "Promote?", "The gate report.", "3")
    facts = (f"{{{{ {_answer}['chosen_options'][0] }}}}", f"{{{{ {_answer}['responded_by_user']['name'] }}}}")
    chain(approve, command("decide", "-c", note("answers"), *facts, "{{ run_id }}", minutes=1))

with new_dag("stuck", __doc__, schedule=None, **{**FACTS, "deadline_minutes": 0.05}):
    command("hang", "-c", "import signal; signal.pause()", minutes=5)
