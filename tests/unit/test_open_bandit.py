"""The check against the Open Bandit sample, on made-up files of its format."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from infra.errors import DataError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "open_bandit.py"
ITEMS, ROWS = 4, 1200
CHANCES = {"random": np.full((3, ITEMS), 0.25), "bts": np.tile([0.1, 0.2, 0.3, 0.4], (3, 1))}
CLICKS = np.array([0.1, 0.2, 0.4, 0.6])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("open_bandit", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both policies' logs of each campaign: the sampler shows more of what is clicked more."""
    found, rng = tmp_path_factory.mktemp("obd"), np.random.default_rng(5)
    for campaign in ("all", "men", "women"):
        for policy, chances in CHANCES.items():
            there = found / policy / campaign
            there.mkdir(parents=True)
            log(rng, chances).to_csv(there / f"{campaign}.csv")
            context().to_csv(there / "item_context.csv")
    return found


def log(rng: np.random.Generator, chances: np.ndarray) -> pd.DataFrame:
    items, users = rng.choice(ITEMS, size=ROWS, p=chances[0]), rng.integers(60, size=ROWS)
    columns = {
        "timestamp": "2019-11-24 00:00:00+00:00",
        "item_id": items,
        "position": rng.integers(1, 4, size=ROWS),
        "click": (rng.random(ROWS) < CLICKS[items]).astype(int),
        "propensity_score": chances[0, items],
        **{f"user_feature_{number}": [f"hash{user // 4**number % 4}" for user in users] for number in range(4)},
        **{f"user-item_affinity_{item}": 0.0 for item in range(ITEMS)},
    }
    return pd.DataFrame(columns)


def context() -> pd.DataFrame:
    """Not in the order of the ids: the reader must not rely on it."""
    ids = np.arange(ITEMS)[::-1]
    kinds = {f"item_feature_{number}": [f"kind{item % number}" for item in ids] for number in (1, 2, 3)}
    return pd.DataFrame({"item_id": ids, "item_feature_0": ids / 10, **kinds})


def test_the_estimates_find_what_the_other_policy_earned(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(folder) == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 + 3 * 2 * 5 and all(len(line) == len(lines[0]) for line in lines)
    for campaign, _, policy, name, estimated, *_ in lines[2:]:
        if campaign == "all" and name in script.ESTIMATORS:
            expected = 1000 * float(CHANCES[policy][0] @ CLICKS)
            assert float(estimated.split(" ")[0]) == pytest.approx(expected, abs=60.0)
    by_name = {(line[1], line[3]): line[6] for line in lines if line[0] == "all"}
    assert by_name["random", "none: the log's mean"] == "outside"  # 0.325 clicks a row, and the sampler has 0.41


def test_the_chances_are_learnt_on_other_people_than_the_truth(script: ModuleType, folder: Path) -> None:
    whole = script.Log.read(folder, "bts", "men")
    first, second = whole.halves()
    assert not set(first.units) & set(second.units)
    assert len(first.rows) + len(second.rows) == len(whole.rows)
    assert first.shares().sum(axis=1) == pytest.approx(1.0)
    assert first.shares() == pytest.approx(CHANCES["bts"], abs=0.1)


def test_features_belong_to_the_item_and_to_the_row(script: ModuleType, folder: Path) -> None:
    found = script.Log.read(folder, "random", "all")
    rows, items = np.array([0, 0, 1]), np.array([1, 3, 3])
    features = found.features(rows, items)
    assert features[:, 0].tolist() == (found.rows.position.to_numpy()[rows] - 1).tolist()
    assert features[:, 1].tolist() == [0.1, 0.3, 0.3]


def test_a_missing_file_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"random/all/all\.csv"):
        script.main(tmp_path)
