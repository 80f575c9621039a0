"""The assets that DAGs set each other off by: their names follow from tables and registered models.

A declaration names a table as it is (`events`), and what the registry says of a model as `challenger(model)`, a version
that has been gated, and `decision(model)`, a promotion, rejection or rollback.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import DataError

_WRITTEN = re.compile(r"(?:(?P<event>challenger|decision)\((?P<model>\w+)\)|(?P<table>\w+))")


@dataclass(frozen=True)
class AssetName:
    """`name` is unique among all assets; `uri` says where the thing is."""

    name: str
    uri: str


def table(name: str) -> AssetName:
    """New partitions of a table."""
    return AssetName(name, f"plumbline://lake/{name}")


def challenger(model: str) -> AssetName:
    """A version of the model was registered and gated."""
    return AssetName(f"{model}_challenger", f"plumbline://registry/{model}/challenger")


def decision(model: str) -> AssetName:
    """A version of the model was promoted or rejected, or the model rolled back."""
    return AssetName(f"{model}_decision", f"plumbline://registry/{model}/decision")


def is_decision(written: str) -> bool:
    """Whether a declaration's word is `decision(model)`."""
    return written.startswith("decision(")


def is_challenger(written: str) -> bool:
    """Whether a declaration's word is `challenger(model)`."""
    return written.startswith("challenger(")


def parse(written: str) -> AssetName:
    """The asset that a declaration means. Raises DataError where it is none of the three forms."""
    match = _WRITTEN.fullmatch(written)
    if match is None:
        raise DataError(
            f"{written!r} is no asset.", do="Write a table's name, `challenger(model)` or `decision(model)`."
        )
    if match["table"]:
        return table(match["table"])
    return (challenger if match["event"] == "challenger" else decision)(match["model"])
