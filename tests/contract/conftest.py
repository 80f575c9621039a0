"""The contract tier shares the integration tier's Spark session."""

from tests.integration.conftest import spark

__all__ = ["spark"]
