"""The Iceberg catalogue: how it is opened, and with which properties a table is made."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from common.folders import make_folder
from infra.contracts import Contract
from infra.database import explained
from infra.lake.schema import iceberg_schema
from infra.profile import LakeSettings

_NAMESPACE = "plumbline"
_BUSY_SECONDS = "60"
_PROPERTIES = {
    # Without merging, a commit slows down with every publish before it.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "8",
    # PyIceberg's own retry would not check the attempt token again, and would let in two appends of one partition.
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}


class Catalog:
    """The tables of one warehouse, by name.

    Raises:
        TransientError, PlumblineError: the catalogue's database, as `infra.database.explained`; or its folder cannot be
            made.
    """

    def __init__(self, settings: LakeSettings, warehouse: str) -> None:
        self._warehouse = warehouse
        uri = make_url(settings.catalog_uri)
        if uri.get_backend_name() == "sqlite" and uri.database:
            make_folder(Path(uri.database).parent)
            uri = uri.update_query_dict({"timeout": _BUSY_SECONDS})
        self._uri = uri
        with explained(uri):
            self._catalog = _open(uri.render_as_string(hide_password=False), warehouse)

    def load(self, name: str) -> Table | None:
        """The table as it is now; None before its first publish."""
        try:
            with explained(self._uri):
                return self._catalog.load_table((_NAMESPACE, name))
        except NoSuchTableError:
            return None

    def load_or_create(self, contract: Contract) -> Table:
        """The table as it is now, made from its contract where it is new."""
        found = self.load(contract.table)
        if found is not None:
            return found
        schema = iceberg_schema(contract)
        source = schema.find_field(contract.partition)
        partition = PartitionField(source.field_id, 1000, IdentityTransform(), contract.partition)
        try:
            return self._catalog.create_table(
                (_NAMESPACE, contract.table),
                schema=schema,
                location=f"{self._warehouse}/tables/{contract.table}",
                partition_spec=PartitionSpec(partition),
                properties=_PROPERTIES,
            )
        except TableAlreadyExistsError:
            return self._catalog.load_table((_NAMESPACE, contract.table))


def _open(uri: str, warehouse: str) -> SqlCatalog:
    # Two processes may both find a new catalogue without its two tables or its namespace and make them: the second one
    # to do so fails, and finds what it missed when it asks again. It can lose once over each of them.
    for _ in range(3):
        with contextlib.suppress(OperationalError, ProgrammingError, IntegrityError):
            return _prepared(uri, warehouse)
    return _prepared(uri, warehouse)


def _prepared(uri: str, warehouse: str) -> SqlCatalog:
    catalog = SqlCatalog("plumbline", uri=uri, warehouse=warehouse)
    catalog.create_namespace_if_not_exists(_NAMESPACE)
    return catalog
