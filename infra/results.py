"""How a command hands a JSON value to the tasks that follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULT_FILE = "PLUMBLINE_RESULT_FILE"
NOTHING = "nothing"
"""Key of the reason why there is nothing to do: whoever is handed one skips what follows."""


def hand_on(value: Any) -> None:
    """Give `value` (JSON) to the tasks that follow; on a terminal, where no task listens, nothing happens."""
    if path := os.environ.get(RESULT_FILE):
        Path(path).write_text(json.dumps(value))
