"""The run ledger. `python -m infra.ledger` answers from the command line."""

from infra.ledger.ledger import Imbalance, LandingFile, Ledger, StaleAttempt
from infra.partitions import Attempt, Commit, run_key

__all__ = ["Attempt", "Commit", "Imbalance", "LandingFile", "Ledger", "StaleAttempt", "run_key"]
