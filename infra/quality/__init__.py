"""Data quality: rules of rows, Great Expectations over a run's aggregates, Data Docs, failing keys as CSV."""

from infra.quality.checkpoint import EXPECTATION, import_ahead, validate_partitions
from infra.quality.failing_keys import Refusal, failing_keys_path, write_failing_keys

__all__ = [
    "EXPECTATION",
    "Refusal",
    "failing_keys_path",
    "import_ahead",
    "validate_partitions",
    "write_failing_keys",
]
