"""Environment variables that the launcher sets for training and scoring processes. No heavy import.

glibc gives large blocks back to the system after each use, and the page faults that follow cost more than half of a
CPU run; these thresholds keep the blocks. OpenMP's waiting threads spin, and on cores shared with other processes they
lose their time slices: a loop step of the demo backbone beside eight busy processes on two cores took seconds, and
0.1 s with threads that sleep. A comparison must give the settings to both sides.
"""

from __future__ import annotations

import os
from pathlib import Path

CPU_SETTINGS: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}

OFFLINE: dict[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def state_folder() -> Path:
    """Where what is made once for all runs is kept: the profile's home, which every process of the spine is told."""
    return Path(os.environ.get("PLUMBLINE__HOME") or Path(__file__).parents[2] / "build")
