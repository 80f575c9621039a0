"""The catalogue: which items are recommended from, what text stands for each, and what makes an item unusable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.core.errors import DataError
from training.core.stage import StageSpec, read_table
from training.core.tables import refuse_nulls

_TEXT_COLUMNS = ("title", "brand", "category", "description", "features")
_INTENT_WORDS = 3
_ITEM_COLUMNS = dict.fromkeys(("item_id", "source", *_TEXT_COLUMNS), pa.string())


@dataclass(frozen=True)
class ItemText:
    """What a shop says of an item: its title; all of it in one line; what one would search to find it."""

    title: str
    text: str
    intent: str


def read_catalogue(spec: StageSpec, sources: Sequence[str], acted_on: str) -> list[dict[str, str]]:
    """The items of `sources` by id; no source named: those of the items in the table `acted_on`.

    Raises DataError for an empty catalogue, an item without an id or a source, and an id that is there twice.
    """
    table = read_table(spec, "items", _ITEM_COLUMNS)
    refuse_nulls("items", table, ("item_id", "source"))
    items = table.to_pylist()
    wanted = set(sources)
    if not wanted:
        training_set = read_table(spec, acted_on, {"item_id": pa.string()})
        source_of = {item["item_id"]: item["source"] for item in items}
        targets = training_set["item_id"].unique().to_pylist()
        wanted = {source_of[target] for target in targets if target in source_of}
    chosen = [item for item in items if item["source"] in wanted]
    if not chosen:
        raise DataError(
            "the catalogue is empty",
            where=f"items of the sources {', '.join(sorted(wanted)) or '(none)'}",
            why=f"the table has items of {', '.join(sorted({item['source'] for item in items}))}",
            do="correct `sources`, or leave it empty for those that people act on",
        )
    _refuse_twice(chosen)
    return sorted(chosen, key=lambda item: item["item_id"])


def _refuse_twice(items: Sequence[Mapping[str, str]]) -> None:
    counts = Counter(item["item_id"] for item in items)
    refuse(list(counts), [n > 1 for n in counts.values()], "are in the catalogue twice", "keep one row per item")


def read_item_texts(spec: StageSpec, item_ids: Sequence[str]) -> dict[str, ItemText]:
    """The texts of those of the items that have a title.

    The intent stands for what one would type to find the item: its kind and its brand, or else the first words of the
    title. No log says it (INFERRED, for the intentions that LC-Rec had an LLM write).
    """
    wanted, found = set(item_ids), {}
    items = [item for item in read_table(spec, "items", _ITEM_COLUMNS).to_pylist() if item["item_id"] in wanted]
    _refuse_twice(items)
    for item in items:
        if (item["title"] or "").strip():
            kind = (item["category"] or "").rpartition(" > ")[2]
            words = " ".join(item["title"].split()[:_INTENT_WORDS])
            intent = f"{kind} {item['brand'] or ''}".strip() if kind else words
            found[item["item_id"]] = ItemText(item["title"], item_text(item, None), intent)
    return found


def read_kinds(spec: StageSpec, item_ids: Sequence[str]) -> dict[str, str]:
    """The narrowest category of those of the items that have one."""
    wanted = set(item_ids)
    rows = read_table(spec, "items", {name: _ITEM_COLUMNS[name] for name in ("item_id", "category")}).to_pylist()
    known = [row for row in rows if row["item_id"] in wanted]
    _refuse_twice(known)
    kinds = {row["item_id"]: (row["category"] or "").rpartition(" > ")[2] for row in known}
    return {item: kind for item, kind in kinds.items() if kind}


def item_text(item: Mapping[str, str | None], fallback: str | None) -> str:
    """The texts of an item joined, short ones first as encoders cut long texts; the fallback where all are empty."""
    text = ". ".join(part for name in _TEXT_COLUMNS if (part := (item[name] or "").strip()))
    return text or (fallback or "").format(item_id=item["item_id"])


def item_texts(items: Sequence[Mapping[str, str | None]], fallback: str | None) -> list[str]:
    """The text of each item; DataError for items that have none where there is no fallback."""
    texts = [item_text(item, fallback) for item in items]
    ids = [str(item["item_id"]) for item in items]
    refuse(ids, [not text for text in texts], "have no text", "give them a title, or set `fallback_text`")
    return texts


def refuse_broken(ids: Sequence[str], vectors: NDArray[np.float32], kind: str = "item") -> None:
    """DataError for items (or users) with an embedding that is not finite; `vectors` are [items, width]."""
    broken = [not np.isfinite(vector).all() for vector in vectors]
    refuse(ids, broken, "have an embedding that is not finite", "look at the encoder that made it", kind)


def refuse(ids: Sequence[str], bad: Sequence[bool], what: str, do: str, kind: str = "item") -> None:
    """DataError that names the first of the `ids` that are `bad`."""
    keys = sorted({item for item, is_bad in zip(ids, bad, strict=True) if is_bad})
    if keys:
        raise DataError(f"{len(keys)} {kind}s {what}", where=f"{kind}s {first_of(keys)}", do=do)


def first_of(keys: Sequence[str]) -> str:
    """`a, b, c, d, e and 7 more`."""
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
