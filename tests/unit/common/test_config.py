"""Plain values from files, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import read_yaml
from common.errors import DataError


@pytest.mark.parametrize("content", ["name: Bücher".encode("latin-1"), b"name: [", b"name: \x00"])
def test_a_file_that_is_no_yaml_of_utf8_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(DataError, match="no YAML") as refusal:
        read_yaml(tmp_path / "a.yaml")
    assert refusal.value.where.endswith("a.yaml") and refusal.value.why and "UTF-8" in refusal.value.do
