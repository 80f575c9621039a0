"""Raw strings to the contract's types, and rules that say which row could not be read so; all as Spark SQL."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from infra.contracts import UNDATED, Column, RowRule
from spark_jobs.ingest.reading import RAW, READABLE
from spark_jobs.ingest.tables import Landed
from spark_jobs.staging import SOURCE_FILE, SOURCE_JSON, SOURCE_ROW

TIME = "_time"
ITEM_KNOWN = "_item_known"
_OLDEST = "1990-01-01"
_KINDS = {"double": "a number", "date": "a date (YYYY-MM-DD)", "timestamp": "a time (ISO 8601, or epoch)"}


def typed_rows(raw: DataFrame, table: Landed, now: datetime) -> DataFrame:
    """The contract's columns, `_time` (what dates the row) and the source columns; no believable time: undated."""
    contract = table.contract
    dated = raw.withColumn(TIME, F.expr(_typed(_column(table, table.time))))
    day = f"if({TIME} between timestamp'{_OLDEST}' and {_literal(now)}, to_date({TIME}), date'{UNDATED}')"
    values = [
        F.expr(day if c.name == contract.partition else _filled(c, table)).alias(c.name) for c in contract.columns
    ]
    return dated.select(*values, TIME, RAW, READABLE, SOURCE_FILE, SOURCE_ROW, SOURCE_JSON)


def typing_rules(table: Landed, now: datetime) -> tuple[RowRule, ...]:
    """Rules about the landing itself; they come before the contract's."""
    time = table.time
    rules = [
        RowRule("row_readable", READABLE, "fail", "The line has as many values as the header, or is one JSON object.")
    ]
    for c in table.columns:
        if c.type != "string":
            value = TIME if c.name == time else c.name
            good = f"{_blank_to_null(c.name)} is null or {value} is not null"
            rules.append(RowRule(f"{c.name}_is_{c.type}", good, "fail", f"{c.name} is {_KINDS[c.type]}."))
    past = f"{TIME} is null or {TIME} <= {_literal(now)}"
    rules.append(RowRule(f"{time}_not_in_future", past, "fail", f"{time} is not after the moment of ingest (UTC)."))
    recent = f"{TIME} is null or {TIME} >= timestamp'{_OLDEST}'"
    rules.append(RowRule(f"{time}_plausible", recent, "fail", f"{time} is not before {_OLDEST}."))
    if table.refers_to_items:
        rules.append(RowRule("item_known", ITEM_KNOWN, "fail", "item_id is in the catalogue (items) as of that day."))
    return tuple(rules)


def _column(table: Landed, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)


def _filled(column: Column, table: Landed) -> str:
    default = table.defaults.get(column.name)
    return _typed(column) if default is None else f"coalesce({_typed(column)}, '{default}')"


def _typed(column: Column) -> str:
    text = _blank_to_null(column.name)
    if column.type == "double":
        return f"if(abs(try_cast({text} as double)) < double('Infinity'), try_cast({text} as double), null)"
    if column.type == "date":
        return f"if({text} rlike '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ T].*)?$', try_cast({text} as date), null)"
    if column.type == "timestamp":
        return _timestamp(text)
    return text


def _timestamp(text: str) -> str:
    """ISO 8601 (UTC where it names no zone), or a number since the epoch whose size tells its unit (s to ns)."""
    number = f"try_cast({text} as decimal(38, 6))"
    micros = (
        f"case when {number} < 100000000 then null when {number} < 1e11 then {number} * 1000000 "
        f"when {number} < 1e14 then {number} * 1000 when {number} < 1e17 then {number} else {number} / 1000 end"
    )
    pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:.*)?$"
    iso = f"if({text} rlike '{pattern}', try_cast({text} as timestamp), null)"
    return f"coalesce({iso}, timestamp_micros(cast({micros} as bigint)))"


def _blank_to_null(name: str) -> str:
    return f"nullif(trim({RAW}.{name}), '')"


def _literal(moment: datetime) -> str:
    return f"timestamp'{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
