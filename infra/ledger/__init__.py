"""The run ledger. `python -m infra.ledger` answers from the command line."""

from infra.ledger.landings import LandingFile, LeftOut, named_input, named_inputs, short_hash
from infra.ledger.ledger import Imbalance, Ledger, StaleAttempt, Unsettled
from infra.ledger.stops import Stop
from infra.partitions import Attempt, Commit, run_key

__all__ = [
    "Attempt",
    "Commit",
    "Imbalance",
    "LandingFile",
    "Ledger",
    "LeftOut",
    "StaleAttempt",
    "Stop",
    "Unsettled",
    "named_input",
    "named_inputs",
    "run_key",
    "short_hash",
]
