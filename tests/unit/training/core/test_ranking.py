"""Whatever meets the whole catalogue goes part by part, and no part changes a result."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.core import ranking
from training.core.ranking import rows_at_once
from training.generative_rec import clustering
from training.generative_rec.clustering import kmeans
from training.generative_rec.interactions import Interactions
from training.generative_rec.scid import collisions, residual_quantizer
from training.generative_rec.scid.collisions import SinkhornConfig, spread
from training.generative_rec.scid.model import ScConfig, Side
from training.generative_rec.scid.report import neighbour_report, side_report
from training.generative_rec.scid.residual_quantizer import QuantizerConfig
from training.generative_rec.stages import collaborative
from training.generative_rec.stages.collaborative import Config, Encoder
from training.next_item.samples import NextItem

ITEMS = [f"i{n}" for n in range(40)]
SEQUENCES = [[ITEMS[(start + 3 * step) % 40] for step in range(6)] for start in range(40)]
SAMPLES = [
    NextItem(f"u{user}", date(2020, 1, 1) + timedelta(days=step), item, tuple(line[:step]), "train")
    for user, line in enumerate(SEQUENCES)
    for step, item in enumerate(line)
]


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, about a row goes at a time."""

    def start() -> None:
        monkeypatch.setattr(ranking, "VALUES_AT_ONCE", 300)

    return start


@given(st.integers(1, 1 << 40))
def test_parts_stay_below_the_budget_down_to_a_row(width: int) -> None:
    rows = rows_at_once(width)
    assert rows == 1 or rows * width <= ranking.VALUES_AT_ONCE < (rows + 1) * width


def test_the_encoder_ranks_a_catalogue_the_same_whole_and_in_pieces_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Interactions.of_training(SAMPLES, ITEMS, 2)
    encoder = Encoder(known, SAMPLES[5::6], Config(width=8, attention=(16, 8), head=(8, 4)), seed=1)
    histories, seen = known.histories(known.targets()[:4], 3), list[int]()
    whole = encoder.scores(histories)
    monkeypatch.setattr(collaborative, "VALUES_IN_CACHE", 300)
    forward = type(encoder._network.attention).forward

    def spied(self: Any, keys: torch.Tensor, queries: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        seen.append(len(keys) * queries.shape[1] * 16)
        return forward(self, keys, queries, owner)

    monkeypatch.setattr(type(encoder._network.attention), "forward", spied)
    assert torch.allclose(encoder.scores(histories), whole, atol=1e-6)
    assert len(seen) > 10 and max(seen) <= 300


def test_reports_of_codes_are_the_same_whole_and_in_pieces(
    in_pieces: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    points = torch.randn(60, 6)
    side = Side((points,), ScConfig(hidden=(8,)), QuantizerConfig(levels=2, codes=8, width=4, hidden=(8,)))
    side.quantizer.start(side.embed(points), torch.Generator().manual_seed(0))
    codes, asked = side.quantizer.encode(side.embed(points))[0], torch.arange(0, 60, 2)
    whole = side_report(side, points, codes) | neighbour_report(side, points, codes, asked)
    in_pieces()
    monkeypatch.setattr(residual_quantizer, "_ROWS_AT_ONCE", 7)
    again = side_report(side, points, codes) | neighbour_report(side, points, codes, asked)
    assert again == pytest.approx(whole, rel=1e-4)


def test_collided_items_are_spread_the_same_whole_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    codes = torch.cat([torch.arange(20).repeat_interleave(3).unsqueeze(1), torch.zeros(60, 1, dtype=torch.long)], dim=1)
    residuals, book = torch.randn(60, 4), torch.randn(16, 4)
    whole = spread(codes, residuals, book, SinkhornConfig())
    monkeypatch.setattr(collisions, "VALUES_IN_CACHE", 70)
    again = spread(codes, residuals, book, SinkhornConfig())
    assert torch.equal(again[0], whole[0]) and again[1] == whole[1]


def test_kmeans_learns_from_so_many_vectors_as_torch_can_draw_from(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, multinomial = list[int](), torch.multinomial
    monkeypatch.setattr(clustering, "_LEARNT_FROM", 50)
    monkeypatch.setattr(
        torch, "multinomial", lambda weight, *a, **k: drawn.append(len(weight)) or multinomial(weight, *a, **k)
    )
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    book = kmeans(centres.repeat(100, 1), 3, 10, torch.Generator().manual_seed(0))
    assert max(drawn) == 50
    assert sorted(book.tolist()) == sorted(centres.tolist())
