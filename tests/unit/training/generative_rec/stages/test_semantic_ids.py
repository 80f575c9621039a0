"""The semantic-id stage: text in, one leaf per item out, and errors that name the items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from training.core.catalogue import item_text
from training.core.errors import DataError
from training.core.stage import StageSpec, TableRef, run_stage
from training.core.trie import Trie
from training.generative_rec.item_codes import read_codes
from training.generative_rec.stages import semantic_ids

COLUMNS = ("item_id", "source", "title", "brand", "category", "description", "features")


def item(number: int, **changes: str | None) -> dict[str, str | None]:
    values = {"item_id": f"i{number}", "source": "shop", "title": f"pen {number % 5}", "brand": None}
    return {**dict.fromkeys(COLUMNS), **values, **changes}


def spec(folder: Path, items: Sequence[dict[str, str | None]], **config: Any) -> StageSpec:
    path = folder / "items.parquet"
    pq.write_table(pa.Table.from_pylist(list(items), schema=pa.schema([(c, pa.string()) for c in COLUMNS])), path)
    sizes = {"levels": 2, "codes": 4, "width": 4}
    acted_on = folder / "training_set.parquet"
    pq.write_table(pa.table({"item_id": pa.array([one["item_id"] for one in items[:1]], pa.string())}), acted_on)
    tables = {"items": TableRef((str(path),)), "next_item_training_set": TableRef((str(acted_on),))}
    return StageSpec("generative_rec", "semantic_ids", str(folder / "out"), 3, tables, config={**sizes, **config})


@pytest.fixture(autouse=True)
def cheap_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors by a hash of the text: equal texts have equal vectors, nothing is loaded."""

    def embed(texts: Sequence[str], *_: object, **__: object) -> NDArray[np.float32]:
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds]).astype(np.float32)

    monkeypatch.setattr(semantic_ids, "embed_texts", embed)


def test_every_item_of_the_catalogue_gets_a_leaf_and_equal_texts_a_further_code(tmp_path: Path) -> None:
    stage = spec(tmp_path, [item(n) for n in range(20)])
    result = semantic_ids.main(stage)
    codes = read_codes(tmp_path / "out")
    assert sorted(codes) == sorted(f"i{n}" for n in range(20))
    trie = Trie.build(list(codes.values()))
    assert [trie.item_of(code) for code in codes.values()] == list(range(20))
    assert {len(code) for code in codes.values()} == {3}
    assert result.metrics["collision_rate"] == pytest.approx(1 - 5 / 20)
    assert result.metrics["largest_collision"] == 4


def published(folder: Path, codes: Sequence[Sequence[int] | None]) -> StageSpec:
    stage = spec(folder, [item(n) for n in range(len(codes))], published="theirs", levels=2, codes=4)
    table = pq.read_table(folder / "items.parquet")
    column = pa.array(codes, pa.list_(pa.int64()))
    pq.write_table(table.append_column("theirs", column), folder / "items.parquet")
    return stage


def test_published_codes_are_taken_as_they_are_but_for_those_that_collide(tmp_path: Path) -> None:
    result = semantic_ids.main(published(tmp_path, [[0, 3], [1, 2], [0, 3]]))
    assert read_codes(tmp_path / "out") == {"i0": (0, 3, 0), "i1": (1, 2), "i2": (0, 3, 1)}
    assert result.metrics["collision_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("codes", [None, [1], [1, 4], [-1, 0]])
def test_an_item_whose_published_codes_do_not_fit_is_named(tmp_path: Path, codes: list[int] | None) -> None:
    with pytest.raises(DataError, match=r"(?s)theirs.*items i1"):
        semantic_ids.main(published(tmp_path, [[0, 3], codes]))


def test_the_codes_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    items = [item(n, title=f"thing {n}") for n in range(20)]
    for name, rows in (("a", items), ("b", items[::-1])):
        (tmp_path / name).mkdir()
        run_stage(spec(tmp_path / name, rows), semantic_ids.main)
    assert read_codes(tmp_path / "a" / "out") == read_codes(tmp_path / "b" / "out")


def test_only_the_chosen_sources_are_in_the_catalogue(tmp_path: Path) -> None:
    items = [item(n, source="shop" if n < 6 else "elsewhere") for n in range(9)]
    semantic_ids.main(spec(tmp_path, items, sources=["shop"]))
    assert sorted(read_codes(tmp_path / "out")) == [f"i{n}" for n in range(6)]


def test_without_chosen_sources_the_catalogue_is_what_people_act_on(tmp_path: Path) -> None:
    items = [item(n, source="shop" if n < 6 else "elsewhere") for n in range(9)]
    semantic_ids.main(spec(tmp_path, items))
    assert sorted(read_codes(tmp_path / "out")) == [f"i{n}" for n in range(6)]


@pytest.mark.parametrize(
    ("items", "config", "reason"),
    [
        ([item(1), item(2, title=None)], {}, r"1 items have no text\n.*i2"),
        ([item(1), item(2, title="  ")], {}, r"1 items have no text\n.*i2"),
        ([item(1), item(2), item(1)], {}, r"1 items are in the catalogue twice\n.*i1"),
        ([item(1)], {"sources": ["gone"]}, r"the catalogue is empty\n.*gone(.|\n)*shop"),
        ([], {}, "table items is empty"),
    ],
)
def test_bad_catalogues_are_refused_with_the_items_named(
    tmp_path: Path, items: list[dict[str, str | None]], config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        semantic_ids.main(spec(tmp_path, items, **config))


def test_an_item_without_text_gets_the_stated_fallback_where_the_config_allows_it(tmp_path: Path) -> None:
    bare = item(2, title=None)
    assert item_text(bare, "item {item_id}") == "item i2"
    semantic_ids.main(spec(tmp_path, [item(1), bare], fallback_text="item {item_id}"))
    assert sorted(read_codes(tmp_path / "out")) == ["i1", "i2"]


def test_an_embedding_that_is_not_finite_is_refused_with_its_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = np.ones((3, 8), dtype=np.float32)
    broken[1, 2] = np.nan
    monkeypatch.setattr(semantic_ids, "embed_texts", lambda *_, **__: broken)
    with pytest.raises(DataError, match=r"1 items have an embedding that is not finite\n.*i1"):
        semantic_ids.main(spec(tmp_path, [item(n) for n in range(3)]))


def test_the_text_has_short_fields_first_and_leaves_out_empty_ones() -> None:
    text = item_text(item(1, brand="Acme", category="", description="Writes. "), None)
    assert text == "pen 1. Acme. Writes."
