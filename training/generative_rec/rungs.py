"""What every stage that aligns a model further shares: what it starts from, its gate, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from training.core.backbone import load_backbone, save_backbone
from training.core.files import new_folder, write_json
from training.core.metrics import Floats
from training.core.stage import GATE_FILE, StageResult, StageSpec, is_main_process
from training.core.tokens import Vocabulary
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.questions import Gate, Judge, Question, Verdict, draw_questions
from training.generative_rec.samples import (
    NextItem,
    Protocol,
    model_folder,
    of_catalogue,
    of_part,
    read_samples,
    refuse_other_split,
)


@dataclass(frozen=True, kw_only=True)
class RungConfig:
    """`start`: the stage whose model this rung starts from; `codes`: the stage whose semantic ids it speaks.

    `questions`: how many training samples are asked at most, each with its last `history` items.
    """

    start: str
    codes: str = "semantic_ids"
    protocol: Protocol = "time"
    history: int = 20
    questions: int = 20_000
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True)
class Rung:
    """A model about to be aligned further, read from `folder`; `before` are its gains [questions] as it starts."""

    spec: StageSpec
    config: RungConfig
    folder: Path
    model: PreTrainedModel
    vocabulary: Vocabulary
    items: ItemCodes
    samples: Sequence[NextItem]
    asked: Sequence[Question]
    judge: Judge
    before: Floats

    @classmethod
    def start(cls, spec: StageSpec, config: RungConfig) -> Rung:
        """Read all that the rung needs. DataError where the model, the ids and the samples do not fit together."""
        folder = spec.artifact(config.start) / model_folder(config.protocol)
        refuse_other_split(spec.artifact(config.codes), config.protocol)
        model, vocabulary = load_backbone(folder)
        items = ItemCodes.load(spec.artifact(config.codes), vocabulary)
        samples = of_catalogue(read_samples(spec, config.protocol), items.item_ids)
        valid, asked = (
            draw_questions(of_part(samples, part), items, config.history, limit, spec.seed)
            for part, limit in (("valid", config.gate.samples), ("train", config.questions))
        )
        judge = Judge(model, items, valid)
        return cls(spec, config, folder, model, vocabulary, items, samples, asked, judge, judge.gains())

    @property
    def pad(self) -> int:
        """The token that fills up rows."""
        return int(self.vocabulary.tokenizer.pad_token_id)

    def end(self, values: Mapping[str, float], resumed_from: int | None) -> StageResult:
        """Hold the gate over the model as it is now, and hand it on, or where it fails what it started from."""
        return self._write(self.config.gate.hold(self.before, self.judge, self.spec.seed), values, resumed_from)

    def leave_out(self, reason: str, values: Mapping[str, float]) -> StageResult:
        """Hand on what the rung started from, untrained."""
        ndcg = float(self.before.mean())
        return self._write(Verdict(ndcg, ndcg, 0.0, 0.0, self.judge.legal(), reason), values, None)

    def _write(self, verdict: Verdict, values: Mapping[str, float], resumed_from: int | None) -> StageResult:
        if is_main_process():
            with new_folder(self.spec.out_dir / model_folder(self.config.protocol)) as scratch:
                if verdict.stands:
                    save_backbone(self.model, self.vocabulary, scratch)
                else:
                    shutil.copytree(self.folder, scratch, dirs_exist_ok=True)
            record = {"stands": verdict.stands, **asdict(verdict), **values}
            write_json(self.spec.out_dir / GATE_FILE, record)
        return StageResult({**verdict.metrics(), **values}, resumed_from=resumed_from)


def read_records(spec: StageSpec) -> dict[str, dict[str, Any]]:
    """What each rung, and each stage that was left out, has recorded, in the order of the artifacts."""
    records = {name: Path(folder) / GATE_FILE for name, folder in spec.artifacts.items()}
    return {name: json.loads(file.read_text()) for name, file in records.items() if file.is_file()}
