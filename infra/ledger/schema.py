"""The ledger's tables. Rows are only ever added; what holds now is the newest row of an (asset, partition)."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Date, ForeignKey, Index, Integer, MetaData, String, Table

from infra.database import UtcDateTime

METADATA = MetaData()
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")

attempts = Table(
    "attempts",
    METADATA,
    Column("token", _ROW_ID, primary_key=True, autoincrement=True),
    Column("asset", String, nullable=False),
    Column("started", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

attempt_partitions = Table(
    "attempt_partitions",
    METADATA,
    Column("token", _ROW_ID, ForeignKey("attempts.token"), primary_key=True),
    Column("partition", Date, primary_key=True),
)

commits = Table(
    "commits",
    METADATA,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("asset", String, nullable=False),
    Column("partition", Date, nullable=False),
    Column("run_key", String, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("snapshot_id", BigInteger),
    Column("action", String, nullable=False),
    Column("rows_in", BigInteger, nullable=False),
    Column("rows_out", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("config_hash", String, nullable=False),
    Column("code_commit", String, nullable=False),
    Column("started", UtcDateTime, nullable=False),
    Column("committed", UtcDateTime, nullable=False),
    Index("commits_by_partition", "asset", "partition", "id"),
    sqlite_autoincrement=True,
)

rule_results = Table(
    "rule_results",
    METADATA,
    Column("commit_id", _ROW_ID, ForeignKey("commits.id"), primary_key=True),
    Column("rule", String, primary_key=True),
    Column("level", String, nullable=False),
    Column("rows_failed", BigInteger, nullable=False),
    Column("status", String, nullable=False),
)

landed_files = Table(
    "landed_files",
    METADATA,
    Column("table_name", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("rows", JSON, nullable=False),
    Column("recorded", UtcDateTime, nullable=False),
)

gone_files = Table(
    "gone_files",
    METADATA,
    Column("table_name", String, primary_key=True),
    Column("name", String, primary_key=True),
)

left_out_files = Table(
    "left_out_landing_files",
    METADATA,
    Column("table_name", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("problem", String, nullable=False),
    Column("sha256", String),
    Column("reader", String),
)

stopped_days = Table(
    "stopped_days",
    METADATA,
    Column("asset", String, primary_key=True),
    Column("partition", Date, primary_key=True),
    Column("run_key", String, nullable=False),
    Column("judge", String, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("why", String, nullable=False),
    Column("recorded", UtcDateTime, nullable=False),
)
