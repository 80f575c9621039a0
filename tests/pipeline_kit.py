"""Declarations of systems that a test makes up."""

from __future__ import annotations

from typing import Any

from common.config import parse_config
from common.pipelines import Pipeline

TRAINING = {"notes": "### Toy: for a test", "deadline_minutes": 60, "after": ["next_item_training_set"]}


def declared(system: str = "toy", **values: Any) -> Pipeline:
    """The declaration of a system, as a preset has it."""
    return parse_config(Pipeline, {"system": system, "training": TRAINING, "stages": [], **values})
