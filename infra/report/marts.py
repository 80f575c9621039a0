"""Read access to the marts, and what the sections of the report are read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from infra.contracts import Contract
from infra.ledger import Ledger


class Marts:
    """Read access to the marts; `rows` gives dictionaries."""

    def __init__(self, marts: Path, lake_views: Path) -> None:
        self._connection = duckdb.connect(str(marts), read_only=True)
        self._connection.execute("set TimeZone = 'UTC'")
        self._connection.execute(f"attach '{str(lake_views).replace(chr(39), chr(39) * 2)}' as lake (read_only)")

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """Run one query with bound parameters."""
        cursor = self._connection.execute(sql, parameters or [])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True)
class Sources:
    """What a section may read: the marts (with the lake's views), the contracts, the ledger, the report's folder."""

    marts: Marts
    contracts: dict[str, Contract]
    ledger: Ledger
    folder: Path
