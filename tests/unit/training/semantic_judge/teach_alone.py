"""Teaches some rows in a process of its own, which a test kills: `FOLDER CONFIG ROWS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.unit.training.judge_kit import evidence_of, shop_items, stage_spec, write_shop
from training.semantic_judge.aspects import aspects
from training.semantic_judge.example_tables import read_examples, read_items
from training.semantic_judge.teachers.chat import EndpointConfig
from training.semantic_judge.teachers.endpoint import EndpointTeacher

if __name__ == "__main__":
    folder, config, rows = Path(sys.argv[1]), EndpointConfig(**json.loads(sys.argv[2])), int(sys.argv[3])
    spec = stage_spec(folder, "teach", write_shop(folder))
    examples = read_examples(spec, read_items(spec))
    teacher = EndpointTeacher(config, aspects(False), evidence_of(shop_items()), folder / "answers", folder / "spent")
    teacher.teach(examples, np.arange(rows), teacher.evidence.numbers(examples.cases)[:rows])
