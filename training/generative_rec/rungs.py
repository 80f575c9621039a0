"""What every stage that aligns a model further shares: what it starts from, its gate, and what it leaves behind.

A rung hands on the gains of its ladder's foot (`foot.json`), the model that the first rung started from: every rung is
held against it too, and asking it again would cost each rung a ranking more.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from training.core.backbone import load_backbone, save_backbone
from training.core.errors import DataError
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

_FOOT_FILE = "foot.json"


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
    """A model about to be aligned further, read from `folder`; `before` are its gains [questions] as it starts, `foot`
    those of the model before the first rung."""

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
    foot: Floats

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
        before = judge.gains()
        foot = _read_foot(spec.artifact(config.start), valid)
        return cls(
            spec, config, folder, model, vocabulary, items, samples, asked, judge, before,
            foot=before if foot is None else foot,
        )  # fmt: skip

    @property
    def pad(self) -> int:
        """The token that fills up rows."""
        return int(self.vocabulary.tokenizer.pad_token_id)

    def end(self, values: Mapping[str, float], resumed_from: int | None, *, best: int) -> StageResult:
        """Hold the gate over the model as it is now, and hand it on, or where it fails what it started from.

        The model is that of the step (or round) `best`; at 0 no step was better than the start, which is logged.
        """
        verdict = self.config.gate.hold(self.judge, self.spec.seed, before=self.before, foot=self.foot)
        return self._write(verdict, {**values, "unmoved": float(best == 0)}, resumed_from)

    def leave_out(self, reason: str, values: Mapping[str, float]) -> StageResult:
        """Hand on what the rung started from, untrained."""
        ndcg = float(self.before.mean())
        verdict = Verdict(float(self.foot.mean()), ndcg, ndcg, 0.0, 0.0, self.judge.legal(), reason)
        return self._write(verdict, values, None)

    def _write(self, verdict: Verdict, values: Mapping[str, float], resumed_from: int | None) -> StageResult:
        if is_main_process():
            with new_folder(self.spec.out_dir / model_folder(self.config.protocol)) as scratch:
                if verdict.stands:
                    save_backbone(self.model, self.vocabulary, scratch)
                else:
                    shutil.copytree(self.folder, scratch, dirs_exist_ok=True)
            record = {"stands": verdict.stands, **verdict.record(), "note": _note(values, verdict.legal)} | dict(values)
            asked = _fingerprint(self.judge.questions)
            write_json(self.spec.out_dir / _FOOT_FILE, {"questions": asked, "gains": self.foot.tolist()})
            write_json(self.spec.out_dir / GATE_FILE, record)
        return StageResult({**verdict.metrics(), **values}, resumed_from=resumed_from)


def _note(values: Mapping[str, float], legal: float) -> str:
    """What the gate's figures do not say of a rung, for people."""
    facts = [f"{values['preferences']:,.0f} preferences"] if "preferences" in values else []
    facts.append(f"{legal:.1%} of the answers without the trie are items")
    if values.get("unmoved"):
        facts.append("no step ranked better than the start, so it is unchanged")
    return "; ".join(facts)


def _read_foot(folder: Path, asked: Sequence[Question]) -> Floats | None:
    """The gains that the rung below has handed on; None where there is no rung below.

    Raises DataError where they are of other questions.
    """
    if not (folder / _FOOT_FILE).is_file():
        return None
    stored = json.loads((folder / _FOOT_FILE).read_text())
    if stored["questions"] != _fingerprint(asked):
        raise DataError(
            "the rung below was judged on other validation questions",
            where=str(folder),
            why="a ladder is held against its foot, question by question",
            do="give all rungs of a ladder the same samples, seed, `history` and `gate.samples`",
        )
    return np.array(stored["gains"])


def _fingerprint(asked: Sequence[Question]) -> str:
    return hashlib.sha256(repr([(one.user_id, one.prompt, one.item) for one in asked]).encode()).hexdigest()
