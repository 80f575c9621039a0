"""The parts of the global split in time, as the cut dates of the profile's section `samples` make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F


def part_of(day: Column, config: Mapping[str, Any]) -> Column:
    """`train`, `valid` or `test`: the part that `day` is in."""
    valid, test = _cuts(config)
    return F.when(day < valid, "train").when(day < test, "valid").otherwise("test")


def part_end(day: Column, config: Mapping[str, Any]) -> Column:
    """The first day of the part after that of `day`; null where there is none."""
    valid, test = _cuts(config)
    return F.when(day < valid, valid).when(day < test, test)


def _cuts(config: Mapping[str, Any]) -> tuple[Column, Column]:
    valid, test = (F.lit(config[name]).cast("date") for name in ("valid_from", "test_from"))
    return valid, test
