"""A writer of hints of both forms, and a ranker, trained in seconds and packaged as evaluations leave them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.hint_kit import stage_spec, write_shop
from tests.unit.training.query_rec import shop_kit as kit
from training.core.stage import run_stage
from training.query_rec.examples import Examples
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_writer import FORMS, HintWriter, WriterConfig
from training.query_rec.hints import FilterConfig
from training.query_rec.serve import package, package_writer
from training.query_rec.shop_words import ShopWords
from training.query_rec.stages import hint_ranker, il_sft, lists

SIZES = {"behaviours": 6, "labels": {"most": 4, "interests": 2, "queries": 2, "fits": 0.2}}
WORDS = {
    "answers": {"text_tokens": 5, "query_tokens": 5, "reason_tokens": 24},
    "backbone": {
        "hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_size": 16, "intermediate_size": 128,
        "max_positions": 512,
    },
    "loop": {"epochs": 12, "rows": 2, "row_tokens": 384, "learning_rate": 3e-3},
    "text_vocabulary": 400,
}  # fmt: skip


def packaged_writer(folder: Path) -> Path:
    """Of the shop of `shop_kit`."""
    (folder / "hint_ranker").mkdir()
    tables = {"query_samples": kit.meetings(240), "items": kit.items()}
    learnt = {"lists": SIZES, "candidates": 4, "ranked": 2}
    made = kit.spec(folder, "lists", learnt, tables, hint_ranker=folder / "hint_ranker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists.HintRanker, "load", lambda *_: kit.KindRanker())
        patch.setattr(lists, "embed_texts", lambda texts, *_, **__: kit.encode(texts))
        lists.main(made)
    models = {}
    for form in FORMS:
        spec = kit.spec(folder, form, {**WORDS, "answers": {**WORDS["answers"], "form": form}}, {}, lists=made.out_dir)
        il_sft.main(spec)
        models[form] = spec.out_dir / "model"
    read = {form: HintModel.load(model) for form, model in models.items()}
    searches = Examples.open(made.out_dir / "lists").searches()
    config = WriterConfig(hints=FilterConfig(log_prob=-20.0))
    writer = HintWriter(read["direct"], read["think"], ShopWords.of(kit.items()), searches, config)
    package_writer(writer, models, folder / "writer")
    return folder / "writer"


def packaged_ranker(folder: Path) -> Path:
    """Of another shop: it says something of any text."""
    config = {"network": {"width": 8, "buckets": 512, "length": 6, "dense": [16]}, "training": {"epochs": 1}}
    spec = stage_spec(folder, "hint_ranker", write_shop(folder, requests=300), config)
    run_stage(spec, hint_ranker.main)
    package(spec.out_dir / "model", folder / "ranker")
    return folder / "ranker"
