"""The process of dbt, stood in for by one that says a few lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra import dbt, processes
from infra.profile import Profile

_DBT = """
import os, pathlib, sys
print("10 of 10 OK")
print("a warning", file=sys.stderr)
target = pathlib.Path(os.environ["DBT_TARGET_PATH"])
target.mkdir(parents=True)
(target / "static_index.html").write_text("docs")
sys.exit({code})
"""


def _says(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(processes, "python", lambda *_: [sys.executable, "-c", _DBT.format(code=code)])


@pytest.mark.parametrize("code", [0, 1])
def test_what_dbt_says_is_no_output_of_the_command_that_builds(
    code: int, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _says(monkeypatch, code)
    if code:
        with pytest.raises(dbt.DbtFailed):
            dbt.build(profile, tmp_path / "lake.duckdb")
    else:
        dbt.build(profile, tmp_path / "lake.duckdb")
        assert (profile.home / "report" / "dbt" / "index.html").read_text() == "docs"
    said = capfd.readouterr()
    assert said.out == ""
    assert sorted(said.err.splitlines()) == ["10 of 10 OK", "a warning"]
