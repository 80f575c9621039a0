"""What every stage that aligns a model further leaves behind: the model that goes on, and the record of its gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from training.core.backbone import save_backbone
from training.core.files import new_folder, write_json
from training.core.stage import StageResult, StageSpec, is_main_process
from training.core.tokens import Vocabulary
from training.generative_rec.questions import Verdict
from training.generative_rec.samples import Protocol, model_folder

GATE_FILE = "gate.json"


def write_rung(
    spec: StageSpec,
    protocol: Protocol,
    start: Path,
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    verdict: Verdict,
    values: Mapping[str, float],
    resumed_from: int | None = None,
) -> StageResult:
    """Write the split's model folder (a copy of `start` where the gate failed) and `gate.json`, with `values` in it."""
    if is_main_process():
        with new_folder(spec.out_dir / model_folder(protocol)) as scratch:
            if verdict.stands:
                save_backbone(model, vocabulary, scratch)
            else:
                shutil.copytree(start, scratch, dirs_exist_ok=True)
        write_json(spec.out_dir / GATE_FILE, {"stands": verdict.stands, **asdict(verdict), **values})
    return StageResult({**verdict.metrics(), **values}, resumed_from=resumed_from)


def read_rungs(spec: StageSpec) -> dict[str, dict[str, Any]]:
    """What the gate of each rung among the artifacts has recorded, in their order; see `write_rung`. A job may run without some of them."""
    records = {name: Path(folder) / GATE_FILE for name, folder in spec.artifacts.items()}
    return {name: json.loads(file.read_text()) for name, file in records.items() if file.is_file()}
