"""No package that we use may call home: the one list of switches, for this process and for those that it starts.

`apply()` must run before the packages are imported: several read their switch at import.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

TELEMETRY_OFF: dict[str, str] = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The server's background job workers cost 650 MB and serve features that nothing here uses.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Tokenizer threads and forked workers deadlock; the library warns on every fork unless told.
    "TOKENIZERS_PARALLELISM": "false",
}


def apply(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set every switch, over any value that is there."""
    environ.update(TELEMETRY_OFF)
