"""A test's tier is its folder; what several tiers share lives here."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.profile import Profile, load_profile

_TIERS = ("unit", "contract", "integration", "behaviour", "chaos")
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = item.path.relative_to(_HERE).parts[0]
        if tier in _TIERS:
            item.add_marker(tier)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """A local profile whose whole state is the test's own folder."""
    return load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "home")})
