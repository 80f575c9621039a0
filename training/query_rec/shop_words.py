"""The catalogue as hints need it: phrases in place of ids, what each thing is, and what a query finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.core.stage import StageSpec, read_table
from training.core.tables import read_parquet
from training.query_rec.catalogue_words import CatalogueWords
from training.query_rec.counting import Thing
from training.query_rec.item_phrases import item_phrase

_COLUMNS = {
    **dict.fromkeys(("item_id", "title", "brand", "category"), pa.string()),
    "in_stock": pa.bool_(),
}


@dataclass(frozen=True)
class ShopWords:
    """Items of the catalogue by id, `phrases` of those with a title, and the `words` of those that can be bought, which
    are `sold`; made of the rows of `table`."""

    table: pa.Table
    things: Mapping[str, Thing]
    phrases: Mapping[str, str]
    sold: frozenset[str]
    words: CatalogueWords

    @classmethod
    def read(cls, spec: StageSpec) -> ShopWords:
        """Of the table `items`, as it is on the day of the run."""
        return cls.of(read_table(spec, "items", _COLUMNS))

    @classmethod
    def load(cls, file: Path) -> ShopWords:
        """Read what `save` wrote."""
        return cls.of(read_parquet("items", [file], _COLUMNS))

    @classmethod
    def of(cls, table: pa.Table) -> ShopWords:
        """Of rows of `items`."""
        rows = table.to_pylist()
        kinds = {row["item_id"]: (row["category"] or "").rpartition(" > ")[2] for row in rows}
        titled = [row for row in rows if (row["title"] or "").strip()]
        things = {row["item_id"]: Thing(row["title"], row["brand"], kinds[row["item_id"]] or None) for row in titled}
        phrases = {item: item_phrase(thing.title, thing.brand) for item, thing in things.items()}
        sold = [row for row in titled if row["in_stock"] is not False]
        # What an item is found by is what it says of itself: title, brand and kinds.
        texts = (
            (f"{row['title']} {row['brand'] or ''} {row['category'] or ''}", kinds[row["item_id"]]) for row in sold
        )
        return cls(table, things, phrases, frozenset(row["item_id"] for row in sold), CatalogueWords.of(texts))

    def save(self, file: Path) -> None:
        """Write the rows."""
        pq.write_table(self.table, file)
