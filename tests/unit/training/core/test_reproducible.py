"""Sums that several threads add to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.core.stage import StageResult, StageSpec, run_stage


@pytest.fixture
def four_threads() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(4)
    torch.use_deterministic_algorithms(False)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def gradients(times: int) -> set[bytes]:
    source = torch.Generator().manual_seed(1)
    table, rows = torch.zeros(20, 4, requires_grad=True), torch.randint(20, (60_000,), generator=source)
    weights, found = torch.randn(60_000, 4, generator=source), set()
    for _ in range(times):
        (gradient,) = torch.autograd.grad((table[rows] * weights).sum(), table)
        found.add(gradient.numpy().tobytes())
    return found


def test_a_stage_takes_them_in_one_order(four_threads: None, tmp_path: Path) -> None:
    found = set[bytes]()

    def main(spec: StageSpec) -> StageResult:
        found.update(gradients(40))
        return StageResult({})

    run_stage(StageSpec("system", "stage", str(tmp_path / "out"), 1, tables={}, artifacts={}, config={}), main)
    assert len(found) == 1
    torch.use_deterministic_algorithms(False)
    assert len(gradients(40)) > 1  # else this shows nothing
