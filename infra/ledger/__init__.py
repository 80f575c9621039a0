"""The run ledger. `python -m infra.ledger` answers from the command line."""

from infra.ledger.landings import LandingFile, LeftOut, named_input
from infra.ledger.ledger import HeldBack, Imbalance, Ledger, StaleAttempt
from infra.partitions import Attempt, Commit, run_key

__all__ = [
    "Attempt",
    "Commit",
    "HeldBack",
    "Imbalance",
    "LandingFile",
    "Ledger",
    "LeftOut",
    "StaleAttempt",
    "named_input",
    "run_key",
]
