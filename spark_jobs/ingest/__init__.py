"""Ingest: landing files (CSV, JSON lines, Parquet) to landed tables; bad rows are quarantined with file, row, rule."""

from spark_jobs.ingest.run import ingest
from spark_jobs.landing.tables import TABLES

LANDED = tuple(TABLES)

__all__ = ["LANDED", "ingest"]
