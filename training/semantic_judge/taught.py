"""What the stage `teach` hands on: the evidence, its numbers, and labels, row by row as the examples are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from common.config import parse_config, read_yaml
from training.core.errors import DataError
from training.core.files import new_folder
from training.core.stage import StageSpec
from training.semantic_judge.aspects import CONTEXT, FUTURE, NOVELTY, PROFILE, UNKNOWN, Aspect, Levels, aspects
from training.semantic_judge.encoder import Encoder, EncoderConfig
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.example_tables import TIME, keys_of, read_examples
from training.semantic_judge.examples import Examples, Floats, Ints

LABELS = "judge_labels"
_TAUGHT, _REASONS, _EVIDENCE = "taught.safetensors", f"tables/{LABELS}/part-0.parquet", "evidence"
LABEL_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("as_of", TIME),
        ("item_id", pa.string()),
        *((aspect.column, pa.int32()) for aspect in (PROFILE, FUTURE, NOVELTY, CONTEXT)),
        ("source", pa.string()),
        ("teacher", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Taught:
    """`numbers` [n, columns], `levels` [n, K] with corrections, `by_person` [n, K] of all n examples, and the rows that
    the teacher was `asked` about, with its `reasons` [asked]."""

    examples: Examples
    evidence: Evidence
    aspects: Sequence[Aspect]
    numbers: Floats
    levels: Levels
    by_person: NDArray[np.bool_]
    asked: Ints
    reasons: Sequence[str | None]

    def save(self, out: Path, teacher: str) -> dict[str, tuple[str, ...]]:
        """Write what `load` reads, and the table `judge_labels`; its files as a stage's result names them."""
        with new_folder(out / _EVIDENCE) as scratch:
            self.evidence.save(scratch)
        arrays = {"numbers": self.numbers, "levels": self.levels, "by_person": self.by_person, "asked": self.asked}
        (out / _REASONS).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self._labels(teacher), out / _REASONS)
        save_file(arrays, out / _TAUGHT)
        return {LABELS: (_REASONS,)}

    def _labels(self, teacher: str) -> pa.Table:
        """A row for each example that was asked about or corrected; levels are null where nobody has said."""
        said = np.zeros(len(self.examples), dtype=bool)
        said[self.asked] = True
        rows = np.flatnonzero(said | self.by_person.any(axis=1))
        reason = dict(zip(self.asked.tolist(), self.reasons, strict=True))
        columns: dict[str, Any] = dict(zip(("user_id", "as_of", "item_id"), keys_of(self.examples, rows), strict=True))
        for aspect in (PROFILE, FUTURE, NOVELTY, CONTEXT):
            k = self.aspects.index(aspect) if aspect in self.aspects else None
            levels = np.full(len(rows), UNKNOWN) if k is None else self.levels[rows, k].astype(np.int32)
            columns[aspect.column] = pa.array(levels.astype(np.int32), mask=levels == UNKNOWN)
        people = self.by_person[rows].any(axis=1)
        columns["source"] = pa.array(np.where(people, "person", "teacher").tolist())
        columns["teacher"] = pa.array([teacher] * len(rows), pa.string())
        columns["reason"] = pa.array([reason.get(row) for row in rows.tolist()], pa.string())
        return pa.table(columns).select(LABEL_SCHEMA.names).cast(LABEL_SCHEMA)

    @classmethod
    def load(cls, spec: StageSpec) -> Taught:
        """Of the spec's artifact `teach`. Raises DataError where its examples are not those of the spec's tables."""
        folder = spec.artifact("teach")
        encoder = Encoder(encoder_of(folder))
        evidence = Evidence.load(folder / _EVIDENCE, encoder)
        arrays, examples = load_file(folder / _TAUGHT), read_examples(spec, evidence.catalogue)
        if len(examples) != len(arrays["levels"]):
            raise DataError(
                "the examples are not those that were taught",
                where=str(folder),
                why=f"there are {len(examples)}, and {len(arrays['levels'])} were taught",
                do="run all stages on the same snapshots",
            )
        reasons = _reasons(folder, examples, arrays["asked"])
        scored = aspects(arrays["levels"].shape[1] == len(aspects(True)))
        return cls(examples, evidence, scored, **arrays, reasons=reasons)


def encoder_of(folder: Path) -> EncoderConfig:
    """The encoder that the stage in `folder` has used."""
    config = read_yaml(folder / "config.yaml")
    return parse_config(EncoderConfig, config["encoder"], str(folder / "config.yaml"))


def _reasons(folder: Path, examples: Examples, asked: Ints) -> list[str | None]:
    from training.semantic_judge.example_tables import found_by_key

    table = pq.read_table(folder / _REASONS, columns=["user_id", "as_of", "item_id", "reason"])
    reason = dict(zip(found_by_key(examples, table).tolist(), table["reason"].to_pylist(), strict=True))
    return [reason.get(row) for row in asked.tolist()]
