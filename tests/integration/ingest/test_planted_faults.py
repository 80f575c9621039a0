"""Counts that nobody can fool: faults of real shops, one or two at a time, in a good landing folder of 20 files.

`PLUMBLINE_TEST_DRAWS=200` asks for more draws than the 20 of a usual run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from infra.errors import EXIT_DATA
from infra.profile import load_profile
from tests.integration.ingest.faults import FAULTS, Planted, csv_text, rows
from tests.landing_kit import ITEMS, Shop, read_nothing

_DRAWS = int(os.environ.get("PLUMBLINE_TEST_DRAWS", "20"))
_GOOD_FILES, _GOOD_ROWS = 20, 5


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Path:
    """A shop whose items are ingested and whose events lie ready: each draw works on a copy."""
    folder = tmp_path_factory.mktemp("shop")
    shop = _shop(folder)
    (folder / "landing").mkdir()
    shop.put("items.csv", ITEMS)
    for number in range(_GOOD_FILES):
        events = rows(f"good{number}", _GOOD_ROWS, day=f"2024-03-0{number % 4 + 1}")
        shop.put_text(f"events/{number:02d}.csv", csv_text(events))
    return folder


def _shop(folder: Path) -> Shop:
    places = {"PLUMBLINE__HOME": str(folder / "home"), "PLUMBLINE__LANDING": str(folder / "landing")}
    return Shop(load_profile("local", environ=places))


@settings(max_examples=_DRAWS, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(names=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=2, unique=True))
def test_whatever_is_planted_every_record_is_accounted_for(started: Path, names: list[str]) -> None:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shop"
        shutil.copytree(started, folder, symlinks=True)
        shop = _shop(folder)
        shop.ingest("items")
        planted = [FAULTS[name](folder / "landing", f"f{n}") for n, name in enumerate(names)]

        report = shop.ingest()

        text = "\n".join(report.lines())
        _check_counts(shop, planted)
        _check_words(planted, text)
        left_out = [file for file in planted if file.records is None]
        assert report.exit_code == (EXIT_DATA if left_out else 0)
        assert {file.name for file in shop.ledger.landings.left_out()} == {file.name for file in left_out}
        users = {row["user_id"] for row in shop.rows()}
        assert {f"good{n}-{row}" for n in range(_GOOD_FILES) for row in range(_GOOD_ROWS)} <= users

        before = shop.rows()
        with pytest.MonkeyPatch.context() as patch:
            read_nothing(patch)
            again = shop.ingest()
        assert again.published == ()
        assert (again.exit_code, again.refusals) == (report.exit_code, report.refusals)
        assert shop.rows() == before


def _check_counts(shop: Shop, planted: list[Planted]) -> None:
    """Records of the files are rows out plus rows in quarantine; what is refused is refused by its row and rule."""
    delivered = _GOOD_FILES * _GOOD_ROWS + sum(file.records or 0 for file in planted)
    assert len(shop.rows()) + len(shop.rows("events_quarantine")) == delivered
    refused = {(file.name, row): rule for file in planted for row, rule in file.refused.items()}
    assert shop.refused() == refused
    assert shop.ledger.reconcile() == []
    assert (
        sum(file.records for file in {f.sha256: f for f in shop.ledger.landings.files("events")}.values()) == delivered
    )


def _check_words(planted: list[Planted], text: str) -> None:
    """The report names each file with something to say about it, and says it."""
    for file in planted:
        for words in file.mentioned:
            assert words in text
        if file.mentioned:
            assert file.name in text


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_one(tmp_path: Path, name: str) -> None:
    """Each plants at least the file that it names."""
    planted = FAULTS[name](tmp_path, "f0")
    path = tmp_path / planted.name
    assert path.exists() or path.is_symlink()
