"""The lake: versioned tables that change whole partitions atomically. `python -m infra.lake` steers it."""

from infra.lake.expire import Expired, expire
from infra.lake.export import export_duckdb
from infra.lake.lake import Lake, Version
from infra.lake.publish import Published, current_keys, publish
from infra.lake.rollback import RolledBack, rollback
from infra.lake.schema import SchemaError, iceberg_schema
from infra.lake.verify import Fault, verify
from infra.partitions import DataFile, PartitionWrite, RuleResult

__all__ = [
    "DataFile",
    "Expired",
    "Fault",
    "Lake",
    "PartitionWrite",
    "Published",
    "RolledBack",
    "RuleResult",
    "SchemaError",
    "Version",
    "current_keys",
    "expire",
    "export_duckdb",
    "iceberg_schema",
    "publish",
    "rollback",
    "verify",
]
