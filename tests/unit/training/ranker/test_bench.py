"""What the benchmarks of the ranker measure: whole lists with reasons, of as many users as are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.bench import benchmarks
from training.ranker import bench


def test_they_are_found_by_their_names() -> None:
    found = benchmarks()
    assert found["rank"] == found["rank_scale"] == "training.ranker.bench"


def test_all_that_ranking_takes_is_in_the_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_TREES", 4)
    bench.fit(tmp_path / "shop", 300)
    figures = bench.rank(tmp_path / "shop", 300, 40)
    parts = {name: value for name, value in figures.items() if name.startswith("seconds.")}
    assert set(parts) == {f"seconds.{part}" for part in ("candidates", "features", "scores", "lists", "reasons")}
    assert figures["seconds"] == pytest.approx(sum(parts.values()))
    assert figures["users"] == 40
    assert figures["candidates"] > 20 and figures["trees"] >= 1
    assert 0.0 <= figures["ranking_gib"] <= figures["peak_gib"]


@pytest.mark.parametrize(("large", "held"), [(19.0, True), (21.0, False)])
def test_a_bar_that_is_missed_is_told(monkeypatch: pytest.MonkeyPatch, large: float, held: bool) -> None:
    monkeypatch.setattr(bench, "measured", lambda folder, items, users: {"seconds": large if items > 10_000 else 10.0})
    result = bench.bench_rank_scale()
    assert result["ours"] == pytest.approx(large / 10.0) and result["within_bars"] is held
    monkeypatch.setattr(bench, "measured", lambda folder, items, users: {"seconds": 3 * large})
    assert bench.bench_rank()["within_bars"] is held
