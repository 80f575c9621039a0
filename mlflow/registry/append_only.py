"""Tables that the database itself keeps append-only: triggers that abort every change of a row that is there."""

from __future__ import annotations

from sqlalchemy import DDL, PrimaryKeyConstraint, Table, UniqueConstraint, event

_SQLITE = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
# INSERT OR REPLACE deletes without firing a delete trigger.
_SQLITE_REPLACE = """
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
_POSTGRES_FUNCTION = """
CREATE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$
"""
_POSTGRES_TRIGGER = """
CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION {table}_is_append_only()
"""


def forbid_changes(table: Table) -> None:
    """Have the triggers made right after `table` is made."""
    sqlite = [_SQLITE.format(table=table.name, verb=verb) for verb in ("UPDATE", "DELETE")]
    keys = [c for c in table.constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint)]
    same = [" AND ".join(f"{column.name} = NEW.{column.name}" for column in key.columns) for key in keys]
    sqlite.append(_SQLITE_REPLACE.format(table=table.name, same=" OR ".join(f"({columns})" for columns in same)))
    postgres = [text.format(table=table.name) for text in (_POSTGRES_FUNCTION, _POSTGRES_TRIGGER)]
    for dialect, statements in (("sqlite", sqlite), ("postgresql", postgres)):
        for statement in statements:
            ddl: DDL = DDL(statement)  # type: ignore[no-untyped-call]
            event.listen(table, "after_create", ddl.execute_if(dialect=dialect))
