"""Stage: multi-task SFT. The backbone learns to write the semantic id of the next item, and what the ids mean.

The mixture of `tasks` (see `tasks`) is drawn anew for each epoch. Its core is `sequential`: each user's training items
are one sequence, and every item in it is learnt after the ones before (one pass instead of one sample per prefix).
Sequences are short and few, so each pass sees them changed: some items left out, and half of them backwards where the
order says nothing, as that of the items of one day. Whether it does is found on validation by counting (INFERRED; see
`order.order_matters`): where what came next predicts surely better than what stood near, none runs so.

Reads `next_item_training_set` and `items` (texts), and the semantic ids of the stage that `codes` names; writes
weights, tokenizer and vocabulary to `model/`, or to `model_leave_one_out/` for that split. Lost on a kill: the steps
since the last checkpoint. A retry goes on from it. Safe to run twice: a finished run is not repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.core.backbone import BackboneConfig, build_backbone, save_backbone
from training.core.catalogue import first_of, read_item_texts
from training.core.embedded import local_folder
from training.core.files import new_folder
from training.core.loop import Loop, LoopConfig, Trained
from training.core.packing import Sample, Samples
from training.core.prompts import FENCES, Writer
from training.core.stage import StageResult, StageSpec, is_main_process, read_table, resolve_config
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes, codebooks, meaning_of, start_from_text
from training.generative_rec.order import order_matters
from training.generative_rec.scid.inputs import profiles
from training.generative_rec.tasks import PROFILE_TASKS, TEXT_TASKS, Augmentation, Corpus, Mixture
from training.generative_rec.validation import Validation, draw, draw_examples
from training.next_item.sample_columns import Samples as NextItems
from training.next_item.samples import (
    Split,
    held_out_from,
    model_folder,
    of_catalogue,
    of_subset,
    read_samples,
    refuse_other_split,
    sequences_by_user,
)


@dataclass(frozen=True)
class Config:
    """Histories are cut to their last `history` items. A backbone without a path has a text tokenizer of `text_tokens`.

    `codes`: the stage that made the semantic ids. `splits`: the splits to train for, one model each, both from the
    start; leave-one-out is for the comparison with papers. `tasks`: the weights of the mixture; a text in a prompt is
    cut to `slot_tokens`. `text_share`: of the learnt tokens, at most; see `Mixture`. `text_start`: how much the codes'
    embeddings start from what the codes stand for.

    The weights of the epoch that ranks best are kept: by the NDCG@10 of at most `eval_examples` validation examples, as
    the loss of tokens is no guide to the ranking (docs/LOG.md). That loss is told of the same examples.
    """

    codes: str = "semantic_ids"
    splits: tuple[Split, ...] = ("time",)
    tasks: Mapping[str, float] = field(default_factory=lambda: {"sequential": 1.0})
    history: int = 20
    text_tokens: int = 1024
    slot_tokens: int = 32
    text_share: float = 1.0
    text_start: float = 1.0
    eval_examples: int = 2000
    augmentation: Augmentation = field(default_factory=Augmentation)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


def main(spec: StageSpec) -> StageResult:
    """Train, and write the weights that rank the validation items best to `model/`."""
    config = resolve_config(spec, Config)
    special = FENCES if set(config.tasks) - {"sequential"} else ()
    codes = spec.artifact(config.codes)
    for split in config.splits:
        refuse_other_split(codes, split)
    vocabulary = Vocabulary.create(_tokenizer(spec, config), codebooks(codes), special, meaning_of(codes))
    results = {split: _train(spec, config, vocabulary, split) for split in config.splits}
    metrics = {
        name if split == "time" else f"{split}.{name}": value
        for split, result in results.items()
        for name, value in result.metrics.items()
    }
    return StageResult(metrics, resumed_from=next(iter(results.values())).resumed_from)


def _train(spec: StageSpec, config: Config, vocabulary: Vocabulary, split: Split) -> StageResult:
    """One run on the training part of a split, with its checkpoint and log in a folder of its own."""
    folder = spec.out_dir if split == "time" else spec.out_dir / split
    folder.mkdir(parents=True, exist_ok=True)
    items = ItemCodes.load(spec.artifact(config.codes), vocabulary)
    rows = of_catalogue(read_samples(spec, split), items.item_ids)
    mixture = Mixture(config.tasks, Writer(vocabulary, config.slot_tokens), config.text_share)
    corpus = _corpus(spec, config, split, items, rows)
    sizes = _rows(mixture.counts(corpus)) | _untold(config, corpus)
    drawn = draw(of_subset(rows, "valid"), config.eval_examples, spec.seed)
    valid = Samples.of(items.next_item(row.history, row.item_id, config.history, row.user_id) for row in drawn)
    model = build_backbone(config.backbone, vocabulary, spec.seed)
    start_from_text(model, vocabulary, spec.artifact(config.codes), config.text_start, spec.seed)
    loop: Loop[Sample] = Loop(model, vocabulary.tokenizer.pad_token_id, config.loop, spec.seed, folder, run=spec.hash)
    sizes["reverse"] = config.augmentation.backwards(corpus.ordered)
    validation = Validation(model, items, draw_examples(drawn, items, config.history, len(drawn), spec.seed))
    trained = loop.train(
        lambda epoch: mixture.epoch(corpus, (spec.seed, epoch)), valid, lambda: -validation.ndcg(), start_counts=False
    )
    parameters = sum(weight.numel() for weight in model.parameters())
    if is_main_process():
        with new_folder(spec.out_dir / model_folder(split)) as scratch:
            save_backbone(model, vocabulary, scratch)
    return StageResult({**_metrics(trained, parameters), **sizes}, resumed_from=trained.resumed_from)


def _corpus(spec: StageSpec, config: Config, split: Split, items: ItemCodes, rows: NextItems) -> Corpus:
    """The training part, with the texts that the tasks ask for."""
    texts = read_item_texts(spec, items.item_ids) if set(config.tasks) & TEXT_TASKS else {}
    told = profiles(spec, held_out_from(rows)) if set(config.tasks) & PROFILE_TASKS else {}
    ordered = config.augmentation.reverse == "validation" and order_matters(rows, items.item_ids, spec.seed)
    return Corpus(items, sequences_by_user(rows), texts, told, config.history, config.augmentation, ordered)


def _rows(counts: Mapping[str, int]) -> dict[str, float]:
    """The rows of each task, as metrics; the log names the tasks that have none."""
    empty = sorted(task for task, count in counts.items() if count == 0)
    if empty and is_main_process():
        why = "no item has a title, or no user a profile or a semantic id"
        sys.stderr.write(f"warning: nothing is learnt for {', '.join(empty)}: {why}\n")
    return {f"rows.{task}": float(count) for task, count in counts.items()}


def _untold(config: Config, corpus: Corpus) -> dict[str, float]:
    """How many items no text task can speak of, as a metric; the log names the first of them."""
    if not set(config.tasks) & TEXT_TASKS:
        return {}
    untold = sorted(set(corpus.items.item_ids) - corpus.texts.keys())
    if untold and is_main_process():
        known = len(corpus.items.item_ids)
        sys.stderr.write(
            f"warning: {len(untold)} of {known} items have no title and are in no text task: {first_of(untold)}\n"
        )
    return {"items_without_title": float(len(untold))}


def _tokenizer(spec: StageSpec, config: Config) -> PreTrainedTokenizerBase:
    """The backbone's own tokenizer, or a small one trained on the item titles."""
    if config.backbone.path is not None:
        return AutoTokenizer.from_pretrained(local_folder(config.backbone.path), local_files_only=True)
    titles = read_table(spec, "items", {"title": pa.string()})["title"].drop_null().to_pylist()
    return train_text_tokenizer(sorted(titles), config.text_tokens)


def _metrics(trained: Trained, parameters: int) -> dict[str, float]:
    return {
        "valid_ndcg@10": -trained.valid_loss,
        "best_step": float(trained.best_step),
        "steps": float(trained.steps),
        "tokens_per_second": trained.tokens_per_second,
        "parameters": float(parameters),
    }
