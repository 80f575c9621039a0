"""A version of a registered model as stages are given it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model (or the name of a baseline that stands in for its champion), in its `role`
    (champion, challenger, baseline), unpacked in `folder`."""

    version: str
    role: str
    folder: str
