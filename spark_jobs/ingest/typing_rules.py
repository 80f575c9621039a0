"""Raw strings to the contract's types, and rules that say which row could not be read so; all as Spark SQL."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from infra.contracts import UNDATED, Column, RowRule
from spark_jobs.engine.staging import FAULT_KEY, SOURCE_FILE, SOURCE_JSON, SOURCE_ROW
from spark_jobs.landing.read import FAULT, FILE, LINE, MOMENT, NUMBER, ODD, TALLY, VALUES
from spark_jobs.landing.tables import OLDEST, Landed
from spark_jobs.landing.text import ABSENT, BLANKS

GIVEN = "_given"
_READABLE = "The line has as many values as the header, or is an object."
_KINDS = {
    "double": "a number",
    "long": "a whole number",
    "boolean": "true or false",
    "date": "a date (YYYY-MM-DD)",
    "timestamp": "a time (ISO 8601, or epoch)",
}
# What becomes of a whole number on its way through a float: `1029.0`, and of a long one, digits lost, `1.02938E+11`.
_THROUGH_FLOAT = r"^(-?[0-9]+)[.]0+$"
_DIGITS_LOST = r"^-?([0-9]+([.][0-9]+[eE][+-]?|[eE][+-])[0-9]+|inf|Infinity)$"
# Spark also takes Java's `3d`, `3f` and `0x1p3`.
_DECIMAL = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"

_WHOLE = r"^[+-]?[0-9]+$"


def typed_rows(raw: DataFrame, table: Landed, now: datetime) -> DataFrame:
    """The contract's columns, what the rules ask about, the source columns, the tally; no believable time: undated."""
    contract = table.contract
    day = f"if({MOMENT} between {_literal(OLDEST)} and {_literal(now)}, to_date({MOMENT}), date'{UNDATED}')"
    values = []
    for column in contract.columns:
        value = day if column.name == contract.partition else _typed(column, table)
        if column.name != contract.partition and column.name in table.defaults:
            value = f"coalesce({value}, '{table.defaults[column.name]}')"
        values.append(F.expr(value).alias(column.name))
    given = []
    blanks, absent = _text(BLANKS), ", ".join(map(_text, ABSENT))
    for name in table.accepted:
        # The value without blanks around it; null where it is blank or a word for an absent value.
        value = f"trim(both {blanks} from {VALUES}.{name})"
        given.append(f"if({value} in ('', {absent}), null, {value}) as {name}")
    whole_row = f"if({FAULT} is null, to_json({VALUES}), to_json(struct({FAULT} as {FAULT_KEY}, {LINE} as line)))"
    return raw.withColumn(GIVEN, F.expr(f"struct({', '.join(given)})")).select(
        *values,
        *(MOMENT, GIVEN, FAULT, ODD, TALLY),
        *(F.col(FILE).alias(SOURCE_FILE), F.col(NUMBER).alias(SOURCE_ROW), F.expr(whole_row).alias(SOURCE_JSON)),
    )


def typing_rules(table: Landed, now: datetime) -> tuple[RowRule, ...]:
    """Rules about the landing itself; they come before the contract's."""
    given = ", ".join(_given(name) for name in table.accepted)
    rules = [
        RowRule("row_readable", f"{FAULT} is null", "fail", _READABLE, alone=True),
        RowRule(
            "row_not_empty",
            f"{FAULT} is not null or coalesce({given}) is not null",
            "drop",
            "The row is empty.",
            alone=True,
        ),
    ]
    for name in table.ids:
        rules += _id_rules(name)
    for c in table.columns:
        if c.type != "string":
            value = MOMENT if c.name == table.time else c.name
            good = f"{_given(c.name)} is null or {value} is not null"
            rules.append(RowRule(f"{c.name}_is_{c.type}", good, "fail", f"{c.name} is {_KINDS[c.type]}."))
    time = table.time
    past = f"{MOMENT} is null or {MOMENT} <= {_literal(now)}"
    rules.append(RowRule(f"{time}_not_in_future", past, "fail", f"{time} is not after the moment of ingest (UTC)."))
    recent = f"{MOMENT} is null or {MOMENT} >= {_literal(OLDEST)}"
    rules.append(RowRule(f"{time}_plausible", recent, "fail", f"{time} is not before {OLDEST:%Y-%m-%d}."))
    return tuple(rules)


def _id_rules(name: str) -> list[RowRule]:
    given = _given(name)
    plain = (
        f"not coalesce(array_contains(split({ODD}, ','), '{name}'), false) "
        f"and not coalesce({given} rlike '{_DIGITS_LOST}' or instr({given}, '\\u0000') > 0, false)"
    )
    exact = f"{given} is null or not {given} rlike '{_THROUGH_FLOAT}'"
    return [
        RowRule(
            f"{name}_is_an_id",
            plain,
            "fail",
            f"{name} is a text or a whole number with all its digits: "
            "no list, object, truth value, infinity, 1.02938E+11, NUL.",
        ),
        RowRule(f"{name}_is_whole", exact, "warn", f"{name} is written without .0; 1029.0 is read as 1029."),
    ]


def _typed(column: Column, table: Landed) -> str:
    given = _given(column.name)
    if column.name == table.time:
        return f"cast({MOMENT} as {column.type})"
    if column.type == "double":
        number = f"try_cast({given} as double)"
        return f"if({given} rlike '{_DECIMAL}' and abs({number}) < double('Infinity'), {number}, null)"
    whole = f"regexp_replace({given}, '{_THROUGH_FLOAT}', '$1')"
    if column.type == "boolean":
        return f"try_cast({given} as boolean)"
    if column.type == "long":
        return f"if({whole} rlike '{_WHOLE}', try_cast({whole} as bigint), null)"
    return whole if column.name in table.ids else given


def _given(name: str) -> str:
    return f"{GIVEN}.{name}"


def _text(text: str) -> str:
    """A literal of Spark SQL."""
    return "'" + "".join(c if c.isalnum() and c.isascii() else f"\\u{ord(c):04x}" for c in text) + "'"


def _literal(moment: datetime) -> str:
    return f"timestamp'{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
