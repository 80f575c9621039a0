"""No DAG: refuses the declarations that cannot be used, so that Airflow shows why DAGs of a system are missing.

The DAGs of the other systems are made in `systems.py`, and go on.
"""

from dags.builder import refuse_faulty_systems

refuse_faulty_systems()
