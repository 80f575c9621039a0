"""Stage: the queries that each thing and each search leads to (AIGQ x2q), as the table `trigger_queries`.

The model of hints in use writes for everybody who was active what interests them, and which of the things that they did
show it; its interests are turned around and ranked (`trigger_index`). Of what is written only what may be shown in the
catalogue of the day goes on. People are asked shard by shard; killed and resumed, the stage asks the open shard again
and no other, and publishes what an undisturbed run does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.models import ModelVersion
from training.core.batch_inference import answered, in_shards
from training.core.errors import LeftOut
from training.core.files import new_folder
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, read_batches, read_query, resolve_config
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.hint_writer import HintWriter
from training.query_rec.people import Person
from training.query_rec.shop_words import ShopWords
from training.query_rec.trigger_index import BY_ITEM, INDEX, TIES, IndexConfig, Trigger, index_of, ties

WRITER, RANKER, CHAMPION = "query_rec", "hint_ranker", "champion"
TABLE, PEOPLE, STATISTICS = "trigger_queries", "active_people", "query_stats"
_TEXTS = pa.list_(pa.string())
_COLUMNS = {
    "user_id": pa.string(),
    "as_of": pa.timestamp("us", "UTC"),
    "days_ago": pa.list_(pa.int64()),
    "actions": _TEXTS,
    "contents": _TEXTS,
}
_SEARCHED = {"stat_date": pa.date32(), "query": pa.string(), "clicked_30d": pa.int64(), "typed_30d": pa.int64()}
_PART = "part-0.parquet"


@dataclass(frozen=True)
class Config:
    """`shard_people`: about how many people a shard has, which is what a kill costs at most."""

    shard_people: int = 512
    index: IndexConfig = field(default_factory=IndexConfig)


def main(spec: StageSpec) -> StageResult:
    """Ask the shards that are missing, join all, and rank.

    Raises LeftOut where no model or no ranker of hints has been promoted, and where nobody was active.
    """
    config = resolve_config(spec, Config)
    writer, ranker = (_champion(spec, name) for name in (WRITER, RANKER))
    asked = read_query(spec, PEOPLE, _COLUMNS)
    day = asked["as_of"][0].as_py().date() - timedelta(days=1)
    inputs = [spec.tables[name].files for name in (PEOPLE, "items")]
    made_from = [inputs, writer.version, ranker.version, config.shard_people, spec.seed]
    shards = in_shards(asked, "user_id", config.shard_people)
    with Progress(len(asked), "write interests", "person") as progress:
        files = answered(
            *(spec.out_dir / "shards", made_from, shards),
            lambda: _Night.of(spec, writer, ranker).ties,
            progress,
        )
    tied = pa.concat_tables([pq.read_table(file) for file in files])
    index = index_of(tied, _searched(spec, day), config.index)
    metrics = {
        "people": float(len(asked)),
        "ties": float(len(tied)),
        "triggers": float(len(index.group_by(["kind", "trigger"]).aggregate([]))),
        "queries": float(len(index["query"].unique())),
        "rows": float(len(index)),
    }
    return StageResult(metrics, {TABLE: (_written(spec.out_dir, index, day, writer, ranker),)})


@dataclass(frozen=True, eq=False)
class _Night:
    """What a shard is asked of."""

    writer: HintWriter
    ranker: HintRanker
    seed: int

    @classmethod
    def of(cls, spec: StageSpec, writer: ModelVersion, ranker: ModelVersion) -> Self:
        """Read both models, and the catalogue of the day."""
        read = replace(HintWriter.load(Path(writer.folder)), shop=ShopWords.read(spec))
        return cls(read, HintRanker.load(Path(ranker.folder)), spec.seed)

    def ties(self, rows: pa.Table) -> pa.Table:
        """Rows of `TIES` of the people of a shard."""
        people = [_person(row) for row in rows.to_pylist()]
        found = [dict(zip(TIES.names, own, strict=True)) for own in (self._tied(people) if people else ())]
        return pa.Table.from_pylist(found, schema=TIES)

    def _tied(self, people: Sequence[Person]) -> Iterator[tuple[str, str, str, float]]:
        phrases, last = self.writer.shop.phrases, self.writer.think.lists.behaviours
        # Goes by whom it is asked of: a shard that is asked again is answered alike, two shards are not drawn alike.
        seed = self.seed + crc32(people[0].user_id.encode())
        interests = self.writer.interests(people, seed)
        queries = [list(dict.fromkeys(query for one in own for query in one.queries)) for own in interests]
        chances = self.ranker.chances(people, queries)
        for person, found, asked, each in zip(people, interests, queries, chances, strict=True):
            shown = dict(zip(asked, map(float, each), strict=True))
            yield from ties([self._sold(one) for one in person.triggers(phrases, last)], found, shown)

    def _sold(self, trigger: Trigger) -> Trigger | None:
        """None for a thing that cannot be bought now: it leads nobody on."""
        return trigger if trigger.kind != BY_ITEM or trigger.key in self.writer.shop.sold else None


def _person(row: Mapping[str, Any]) -> Person:
    days_ago, actions, contents = (tuple(row[name]) for name in ("days_ago", "actions", "contents"))
    return Person(row["user_id"], row["as_of"], days_ago, actions, contents)


def _champion(spec: StageSpec, model: str) -> ModelVersion:
    found = [one for one in spec.models.get(model, ()) if one.role == CHAMPION]
    if not found:
        raise LeftOut(f"no version of {model} has been promoted yet", do="promote one; the next night has an index")
    return found[0]


def _searched(spec: StageSpec, day: date) -> Mapping[str, int]:
    """How often each query was searched for in the 30 days up to its newest row, of those that have one in the last 30
    days: what nobody does any more has none of late, and its last row tells of long ago."""
    newest: dict[str, tuple[date, int]] = {}
    of_late = (pc.field("stat_date") > day - timedelta(days=30)) & (pc.field("stat_date") <= day)
    for table in read_batches(spec, STATISTICS, _SEARCHED):
        for row in table.filter(of_late).to_pylist():
            at, count = row["stat_date"], row["clicked_30d"] + row["typed_30d"]
            if at >= newest.get(row["query"], (at, 0))[0]:
                newest[row["query"]] = (at, count)
    return {query: count for query, (_, count) in newest.items()}


def _written(out: Path, index: pa.Table, day: date, writer: ModelVersion, ranker: ModelVersion) -> str:
    """The rows as they are published; the file's path below `out`."""
    fixed = {"index_date": pa.array([day] * len(index), pa.date32())}
    fixed |= {
        name: pa.array([version] * len(index), pa.string())
        for name, version in (("model_version", writer.version), ("ranker_version", ranker.version))
    }
    rows = index
    for name, values in fixed.items():
        rows = rows.append_column(name, values)
    with new_folder(out / "tables" / TABLE) as scratch:
        pq.write_table(rows.select(["index_date", *INDEX.names, "model_version", "ranker_version"]), scratch / _PART)
    return f"tables/{TABLE}/{_PART}"
