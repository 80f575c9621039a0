"""A test's tier is its folder; what several tiers share lives here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from infra.profile import Profile, load_profile

_TIERS = ("unit", "contract", "integration", "behaviour", "chaos")
_HERE = Path(__file__).parent
# Folders whose tests share something that takes long to make.
_TOGETHER = ("behaviour", "contract/dags")
settings.register_profile("plumbline", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("plumbline")
# The main module of a process of a parallel run has no file; pyspark takes such a one for its own doctests and exits.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = pytest.__file__


class _ByFile(LoadScopeScheduling):
    """A file's tests go to one process, in their order; so do those of all files that share something."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.partition("::")[0].removeprefix("tests/")
        return next((folder for folder in _TOGETHER if place.startswith(f"{folder}/")), place)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = item.path.relative_to(_HERE).parts[0]
        if tier in _TIERS:
            item.add_marker(tier)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """A local profile whose whole state is the test's own folder."""
    return load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "home")})
