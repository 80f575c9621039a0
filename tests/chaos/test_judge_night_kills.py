"""The nightly scoring killed in the middle of a shard: what is published is what an undisturbed run publishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.training import judge_kit
from tests.unit.training.semantic_judge.night_kit import lists, night_spec, packaged, written
from training.core.stage import StageSpec
from training.semantic_judge import encoder

pytestmark = pytest.mark.chaos
USERS = 40
_VICTIM = """
import os, signal, sys
from pathlib import Path
from training.core.stage import StageSpec, run_stage
from training.semantic_judge import night
from training.semantic_judge.stages import score
own, left = night.numbers_of, [int(sys.argv[2])]
def numbers_of(judge, cases):
    found = own(judge, cases)
    print("judged", len(cases), flush=True)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
night.numbers_of = numbers_of
run_stage(StageSpec.load(Path(sys.argv[1])), score.main)
"""


def launched(spec: StageSpec, home: Path, die_at: int) -> tuple[int, int]:
    """The exit code, and how many cases were judged."""
    environment = {**os.environ, "PLUMBLINE__HOME": str(home)}
    command = [sys.executable, "-c", _VICTIM, str(written(spec)), str(die_at)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, sum(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("judged"))


def test_killed_in_the_middle_of_any_shard_and_resumed_it_leaves_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    judge, rows = packaged(tmp_path / "judge"), lists(USERS)
    whole = night_spec(tmp_path / "whole", judge, rows)
    code, judged = launched(whole, tmp_path / "home-whole", 0)
    assert code == 0
    expected = pq.read_table(whole.out_dir / "tables" / "judge_scores" / "part-0.parquet")
    biggest = max(Counter(row["user_id"] for row in expected.to_pylist()).values()) * USERS
    for place in (1, 3, 5):
        spec = night_spec(tmp_path / f"killed-{place}", judge, rows)
        home = tmp_path / f"home-{place}"
        code, before = launched(spec, home, place)
        assert code == -signal.SIGKILL
        code, after = launched(spec, home, 0)
        assert code == 0 and judged <= before + after < judged + biggest
        found = pq.read_table(spec.out_dir / "tables" / "judge_scores" / "part-0.parquet")
        assert found.equals(expected)
        # Of the shards that were whole before the kill no case is judged again.
        open_shard = before + after - judged
        assert open_shard <= before and after == judged - (before - open_shard)
