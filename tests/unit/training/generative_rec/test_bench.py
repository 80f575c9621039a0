"""The tokenizer's benchmark says why it skips."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.generative_rec import bench


def test_without_the_data_sets_it_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_SHARED_DATA", raising=False)
    assert "amazon-beauty" in bench.bench_tokenizer()["skipped"]
    monkeypatch.setenv("PLUMBLINE_SHARED_DATA", str(tmp_path))
    assert "amazon-beauty" in bench.bench_tokenizer()["skipped"]


def test_the_settings_are_those_of_the_pipelines_demo() -> None:
    presets = bench._presets()
    assert set(presets) == set(bench._STAGES) and presets["scid_tokenizer"]["text"]["max_tokens"] == 48
