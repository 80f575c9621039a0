"""Stage: new hints for whoever has just done something (AIGQ u2q, section 2.7), as the table `user_hints`.

The model of hints in use writes a list for each signal (form direct, people put to it in batches) in the catalogue of
the day; its filter and its counting rows decide what is shown, and what a signal searches for is no hint of its own.
Behind the newest list stand the person's last few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, read_query, resolve_config
from training.query_rec.hint_writer import HintWriter, SampleConfig
from training.query_rec.hints import MODEL, Hint, HintFilter
from training.query_rec.people import Person
from training.query_rec.shop_words import ShopWords
from training.query_rec.user_lists import UserLists, searched_for

WRITER, CHAMPION = "query_rec", "champion"
TABLE, SIGNALS = "user_hints", "fresh_signals"
_TIME, _TEXTS, _COUNTS = pa.timestamp("us", "UTC"), pa.list_(pa.string()), pa.list_(pa.int64())
_ASKED = {
    **dict.fromkeys(("user_id", "signal_id", "action", "content"), pa.string()),
    "signal_date": pa.date32(),
    **dict.fromkeys(("signal_time", "as_of"), _TIME),
    **dict.fromkeys(("days_ago", "lists"), _COUNTS),
    **dict.fromkeys(("actions", "contents", "queries", "sources", "trigger_actions", "trigger_contents"), _TEXTS),
}
_WRITTEN = pa.schema(
    {
        "hint_date": pa.date32(),
        **dict.fromkeys(("user_id", "signal_id"), pa.string()),
        **dict.fromkeys(("available_at", "signal_time"), _TIME),
        **dict.fromkeys(("queries", "sources"), _TEXTS),
        "lists": _COUNTS,
        **dict.fromkeys(("trigger_actions", "trigger_contents"), _TEXTS),
        "model_version": pa.string(),
    }
)
_PART = "part-0.parquet"


@dataclass(frozen=True)
class Config:
    """`lists`: so many of a person's last lists stay (INFERRED: 3). `samples`: how a list is drawn; one sample of ten
    queries, as the paper asks for, where evaluation merges three."""

    lists: int = 3
    samples: SampleConfig = field(default_factory=lambda: SampleConfig(samples=1, depth=10))


def main(spec: StageSpec) -> StageResult:
    """Write the lists of the signals that have none.

    Raises LeftOut where no model of hints has been promoted, and where nobody calls for hints.
    """
    config = resolve_config(spec, Config)
    version = _champion(spec)
    signals = read_query(spec, SIGNALS, _ASKED).to_pylist()
    writer = HintWriter.load(Path(version.folder))
    sampled = replace(writer.config, samples=config.samples)
    writer = replace(writer, shop=ShopWords.read(spec), config=sampled)
    asked = [searched_for(_trigger(row)) for row in signals]
    hints = writer.hints([_person(row) for row in signals], spec.seed, asked)
    rows = list(_rows(signals, hints, version, config.lists, writer.fill.hints))
    with new_folder(spec.out_dir / "tables" / TABLE) as scratch:
        pq.write_table(pa.Table.from_pylist(rows, _WRITTEN), scratch / _PART)
    shown = [hint for own in hints for hint in own]
    metrics = {
        "signals": float(len(signals)),
        "people": float(len({row["user_id"] for row in signals})),
        "without_hints": float(sum(not own for own in hints)),
        "hints": len(shown) / len(signals),
        "written": sum(hint.source == MODEL for hint in shown) / max(len(shown), 1),
    }
    return StageResult(metrics, {TABLE: (f"tables/{TABLE}/{_PART}",)})


def _rows(
    signals: Sequence[Mapping[str, Any]],
    hints: Sequence[Sequence[Hint]],
    version: ModelVersion,
    last: int,
    shop: HintFilter,
) -> Iterator[dict[str, Any]]:
    """Rows of `_WRITTEN`; signals of one person come in the order of time, each knows the lists before it, and is
    later than the one before."""
    made, lists = datetime.now(UTC), dict[str, UserLists]()
    for place, (signal, own) in enumerate(zip(signals, hints, strict=True)):
        user = signal["user_id"]
        before = lists.get(user) or UserLists.of(signal)
        lists[user] = before.behind(_trigger(signal), own, last, shop.refused)
        yield {
            "hint_date": signal["signal_date"],
            **{name: signal[name] for name in ("user_id", "signal_id", "signal_time")},
            "available_at": made + timedelta(microseconds=place),
            **lists[user].row(),
            "model_version": version.version,
        }


def _trigger(signal: Mapping[str, Any]) -> tuple[str, str]:
    return signal["action"], signal["content"]


def _person(row: Mapping[str, Any]) -> Person:
    days_ago, actions, contents = (tuple(row[name]) for name in ("days_ago", "actions", "contents"))
    return Person(row["user_id"], row["as_of"], days_ago, actions, contents)


def _champion(spec: StageSpec) -> ModelVersion:
    found = [one for one in spec.models.get(WRITER, ()) if one.role == CHAMPION]
    if not found:
        raise LeftOut(f"no version of {WRITER} has been promoted yet", do="promote one; the next run writes hints")
    return found[0]
