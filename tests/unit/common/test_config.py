"""Plain values from files, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from common.config import parse_config, read_yaml
from common.errors import DataError


@dataclass(frozen=True)
class Sizes:
    widths: Mapping[Literal["small", "large"], int]
    free: Mapping[str, Any]


@pytest.mark.parametrize("content", ["name: Bücher".encode("latin-1"), b"name: [", b"name: \x00"])
def test_a_file_that_is_no_yaml_of_utf8_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(DataError, match="no YAML") as refusal:
        read_yaml(tmp_path / "a.yaml")
    assert refusal.value.where.endswith("a.yaml") and refusal.value.why and "UTF-8" in refusal.value.do


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"widths": {"small": 1, "tiny": 2}, "free": {}}, "'tiny' is not allowed(?s:.*)config.widths"),
        ({"widths": {}, "free": {1: "a", "b": "c"}}, "1 has the wrong type(?s:.*)config.free(?s:.*)type str"),
    ],
)
def test_the_key_of_a_mapping_has_its_type_as_the_value_has(values: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_config(Sizes, values)


@pytest.mark.parametrize(
    "text",
    [
        "day: 2024-02-30",
        "n: !!int sixty",
        "f: !!float x",
        "b: !!bool maybe",
        "t: !!timestamp x",
        "n: " + "9" * 5000,
        "a: &a {x: *a}",
    ],
)
def test_a_value_that_python_cannot_make_is_no_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DataError, match="no YAML") as refusal:
        read_yaml(tmp_path / "x.yaml")
    assert refusal.value.where == str(tmp_path / "x.yaml")
