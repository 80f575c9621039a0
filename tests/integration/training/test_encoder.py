"""The embedded text encoder for real: offline, unit length, and near in meaning is near in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.core.embeddings import embed_texts, embedded_encoder
from training.core.precision import multiplies_bf16


def test_texts_of_one_meaning_are_nearer_than_texts_of_another(tmp_path: Path) -> None:
    texts = ["red wool sweater for winter", "warm knitted pullover", "usb-c charging cable"]
    vectors = embed_texts(texts, tmp_path)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(0.50, abs=0.01)
    assert vectors[0] @ vectors[2] == pytest.approx(0.16, abs=0.01)


def test_any_sentence_transformers_folder_will_do(tmp_path: Path) -> None:
    given = embed_texts(["paper"], tmp_path / "given", encoder=embedded_encoder())
    assert given == pytest.approx(embed_texts(["paper"], tmp_path / "default"), abs=1e-6)


def test_products_in_bf16_turn_no_vector_and_are_never_taken_for_those_of_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["paper", "a red stapler with two boxes of staples, for the office or the school " * 4]
    fast = embed_texts(texts, tmp_path)
    monkeypatch.setattr("training.core.embeddings.products", lambda wished: None)
    exact = embed_texts(texts, tmp_path)
    assert (fast * exact).sum(axis=1).min() > 0.9999
    assert multiplies_bf16() == (not np.array_equal(fast, exact))
