"""What every stage that aligns the recommender further shares: what it starts from, and its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from transformers import PreTrainedModel

from training.core.backbone import load_backbone, save_backbone
from training.core.gated_stage import GatedStage, StageGate, Verdict
from training.core.stage import StageResult, StageSpec
from training.core.tokens import Vocabulary
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.validation import EVAL_AT, Example, Validation, draw_examples
from training.next_item.samples import (
    TABLE,
    Samples,
    Split,
    model_folder,
    of_catalogue,
    of_subset,
    read_samples,
    refuse_other_split,
)
from training.next_item.store_features import still_told


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """`start`: the stage whose model this one starts from; `codes`: the stage whose semantic ids it speaks.

    `examples`: how many training samples are used at most, each with its last `history` items.
    """

    start: str
    codes: str = "semantic_ids"
    split: Split = "time"
    history: int = 20
    examples: int = 20_000
    gate: StageGate = field(default_factory=StageGate)


@dataclass(frozen=True)
class AlignmentStage:
    """A model about to be aligned further: the `examples` to align it with, and the `gate` that it has to pass."""

    spec: StageSpec
    model: PreTrainedModel
    vocabulary: Vocabulary
    items: ItemCodes
    samples: Samples
    examples: Sequence[Example]
    validation: Validation
    gate: GatedStage

    @classmethod
    def start(cls, spec: StageSpec, config: AlignmentConfig, store_features: Sequence[str] = ()) -> AlignmentStage:
        """Read all that the stage needs, with what it asks of the feature store. DataError where the model, the ids and
        the samples do not fit together."""
        folder = spec.artifact(config.start) / model_folder(config.split)
        refuse_other_split(spec.artifact(config.codes), config.split)
        model, vocabulary = load_backbone(folder)
        items = ItemCodes.load(spec.artifact(config.codes), vocabulary)
        store = still_told(spec, TABLE, store_features)
        samples = of_catalogue(read_samples(spec, config.split, store=store), items.item_ids)
        valid, examples = (
            draw_examples(of_subset(samples, part), items, config.history, limit, spec.seed)
            for part, limit in (("valid", config.gate.samples), ("train", config.examples))
        )
        validation = Validation(model, items, valid)
        asked = [(one.user_id, (one.prompt, one.item)) for one in valid]
        gate = GatedStage.begin(spec, config.gate, folder, (f"ndcg@{EVAL_AT}",), asked, validation.gains)
        return cls(spec, model, vocabulary, items, samples, examples, validation, gate)

    @property
    def pad(self) -> int:
        """The token that fills up rows."""
        return int(self.vocabulary.tokenizer.pad_token_id)

    def end(self, values: Mapping[str, float], resumed_from: int | None, *, best: int) -> StageResult:
        """Hold the gate over the model as it is now, and hand it on, or where it fails what it started from.

        The model is that of the step (or round) `best`; at 0 no step was better than the start, which is logged.
        """
        if best == 0:
            verdict = self.gate.hold(self.gate.before.gains, self._valid_at_start())
        else:
            verdict = self.gate.hold(self.validation.gains(), self.validation.valid_id_rate())
        return self._hand_on(verdict, {**values, "unmoved": float(best == 0)}, resumed_from)

    def leave_out(self, reason: str, values: Mapping[str, float]) -> StageResult:
        """Hand on what the stage started from, untrained."""
        return self._hand_on(self.gate.unchanged(reason, self._valid_at_start()), values, None)

    def _valid_at_start(self) -> float:
        known = self.gate.before.valid
        return self.validation.valid_id_rate() if known is None else known

    def _hand_on(self, verdict: Verdict, values: Mapping[str, float], resumed_from: int | None) -> StageResult:
        save = partial(save_backbone, self.model, self.vocabulary)
        return self.gate.hand_on(verdict, save, values, _note(values, verdict.valid), resumed_from)


def _note(values: Mapping[str, float], valid: float) -> str:
    """What the gate's figures do not say of a stage, for people."""
    facts = [f"{values['preferences']:,.0f} preferences"] if "preferences" in values else []
    facts.append(f"{valid:.1%} of the answers without the trie are items")
    if values.get("unmoved"):
        facts.append("no step ranked better than the start, so it is unchanged")
    return "; ".join(facts)
