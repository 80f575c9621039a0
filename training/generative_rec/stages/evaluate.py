"""Stage: every model and baseline on the same test samples, the same candidates (the whole catalogue), the same seed.

Writes the table `model_metrics` (means with 95 % intervals by user, by slice), the table `eval_values` (what each
sample adds to each of the `values`, by model: what gates compare pair by pair), and `model/`, the packaged recommender,
which describes itself. A list ends at `depth` for every row, so MRR is cut there too. A sample is what a user did with
an item on a day: twice is once (`samples.read_samples`), so each has one value.

Both tables name the split of each line. The time split decides. Leave-one-out stands beside it for the comparison with
papers, with every row fitted anew on its training part: a model of the time split has seen leave-one-out's test items,
so a trained model has a row there only where its stage trained one for it (`splits` of `sft`).

A row whose stages were left out has the weights of the row that they started from, and so its figures; a model whose
stage made nothing has no row, and neither has a baseline that the data is too little for: `gate.json` says why. The
baseline with the best NDCG@10 is packed in `baseline/`: where there is no champion, it makes the nightly lists. Where
nothing could be measured, as in a shop of one day, that is popularity over the training part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from training.core.catalogue import read_catalogue, read_kinds
from training.core.errors import DataError, LeftOut
from training.core.files import write_json
from training.core.metrics import METRICS
from training.core.stage import GATE_FILE, StageResult, StageSpec, resolve_config
from training.generative_rec.baselines.packed import Facts, pack
from training.generative_rec.baselines.rows import COUNTED, BaselineName, fitted
from training.generative_rec.baselines.sasrec import SASRecConfig
from training.generative_rec.item_codes import read_codes
from training.generative_rec.serve import Recommender as Generative
from training.generative_rec.serve import Serving, package
from training.next_item.comparison import (
    COMPARED,
    Comparison,
    Row,
)
from training.next_item.evaluation import chosen_samples, measured, write_comparisons
from training.next_item.recommender import Recommender
from training.next_item.samples import (
    TABLE,
    Split,
    model_folder,
    of_catalogue,
    of_subset,
    read_samples,
    refuse_other_split,
    training_sequences,
)

LeftOutRows = dict[str, str]
_CHUNK = 256


@dataclass(frozen=True)
class Config:
    """`models`: the stages that trained them, in the order of the rows, each with the stage of its semantic ids.

    The last one is packaged; those whose stages were left out have no row. `baselines`: of each split that is measured;
    the first split needs every model.

    `values`: the metrics that `eval_values` has for each sample; those of the gate must be among them.

    `rank_own`: may a user's own items be ranked (same for all rows). `samples`: measure at most so many test samples of
    a split, of users drawn with the seed.
    """

    models: Mapping[str, str] = field(default_factory=lambda: {"sft": "semantic_ids"})
    baselines: Mapping[Split, tuple[BaselineName, ...]] = field(
        default_factory=lambda: {"time": (*COUNTED, "sasrec"), "leave_one_out": COUNTED}
    )
    values: tuple[str, ...] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
    rank_own: bool = True
    depth: int = 20
    samples: int | None = None
    resamples: int = 1000
    serving: Serving = field(default_factory=Serving)
    sasrec: SASRecConfig = field(default_factory=SASRecConfig)


def main(spec: StageSpec) -> StageResult:
    """Measure all rows on both splits; package the last model and the best baseline."""
    config = resolve_config(spec, Config)
    there = {m: codes for m, codes in config.models.items() if not (spec.left_out(m) or spec.left_out(codes))}
    config, left_out = replace(config, models=there), LeftOutRows()
    if unknown := set(config.values) - set(METRICS):
        raise DataError(f"{min(unknown)!r} is no metric of a sample", where="values", do=f"use {', '.join(METRICS)}")
    catalogue = _catalogue(spec, config)
    # Checkpoints are loaded first, so that a bad one costs no training time.
    trained = {split: _trained(spec, config, split) for split in config.baselines}
    found = list[Comparison]()
    for split, baselines in config.baselines.items():
        if baselines or trained[split]:
            with _recorded(left_out, f"the {split} split"):
                found.append(_compare(spec, config, split, catalogue, baselines, trained[split], left_out))
    if left_out:
        words = "; ".join(f"without {name}: {why}" for name, why in left_out.items())
        ran = {"accepted": bool(found), "reason": "" if found else words, "note": words if found else ""}
        write_json(spec.out_dir / GATE_FILE, ran)
    result = write_comparisons(spec, found, config.values)
    _pack_best(spec, config, catalogue, result.metrics)
    return replace(result, metrics={**result.metrics, "models": float(len(config.models))})


@contextmanager
def _recorded(left_out: LeftOutRows, name: str) -> Iterator[None]:
    """What cannot be done for want of data is left out, and it is noted why."""
    try:
        yield
    except LeftOut as refusal:
        left_out[name] = refusal.reason


def _catalogue(spec: StageSpec, config: Config) -> list[str]:
    """The items of the last model's ids, or those that people act on where there is no model."""
    if config.models:
        return sorted(read_codes(spec.artifact(list(config.models.values())[-1])))
    return [item["item_id"] for item in read_catalogue(spec, (), TABLE)]


def _pack_best(spec: StageSpec, config: Config, catalogue: Sequence[str], metrics: Mapping[str, float]) -> None:
    names = next(iter(config.baselines.values()), ())
    measured = [name for name in names if f"{name}.{COMPARED}" in metrics]
    if measured or (names and _has_training(spec, next(iter(config.baselines)))):
        best: BaselineName = max(measured, key=lambda name: metrics[f"{name}.{COMPARED}"], default="popularity")
        pack(spec, Facts(best, spec.seed, config.sasrec, config.rank_own), catalogue, spec.out_dir / "baseline")


def _has_training(spec: StageSpec, split: Split) -> bool:
    try:
        read_samples(spec, split, TABLE)
    except LeftOut:
        return False
    return True


def _trained(spec: StageSpec, config: Config, split: Split) -> dict[str, Recommender]:
    """The models that were trained on this split, packaged into the folder that they have in their stage.

    Models with the same weights and ids are one recommender, under each of their names.
    """
    name, found = model_folder(split), dict[str, Recommender]()
    loaded: dict[tuple[str, str], Recommender] = {}
    for model, codes in config.models.items():
        folder = spec.artifact(model) / name
        if split == next(iter(config.baselines)) or folder.is_dir():
            refuse_other_split(spec.artifact(codes), split)
            package(folder, spec.artifact(codes), config.serving, spec.out_dir / name)
            same = (codes, _hash_of_weights(folder))
            if same not in loaded:
                loaded[same] = Generative.load(spec.out_dir / name)
            found[model] = loaded[same]
    return found


def _hash_of_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _compare(
    spec: StageSpec,
    config: Config,
    split: Split,
    catalogue: Sequence[str],
    baselines: Sequence[BaselineName],
    trained: Mapping[str, Recommender],
    left_out: LeftOutRows,
) -> Comparison:
    samples = of_catalogue(read_samples(spec, split, TABLE), catalogue)
    test, kinds = chosen_samples(of_subset(samples, "test"), config.samples, spec.seed), read_kinds(spec, catalogue)
    seen, found = dict[Recommender, Row](), list[Row]()
    for row in baselines:
        with _recorded(left_out, row):
            model = fitted(row, catalogue, samples, config.sasrec, config.rank_own, spec.seed)
            found.append(measured(row, model, test, catalogue, config.depth, config.rank_own))
    for name, recommender in trained.items():
        if recommender not in seen:
            seen[recommender] = measured(name, recommender, test, catalogue, config.depth, config.rank_own)
        found.append(replace(seen[recommender], model=name))
    warm = frozenset(chain.from_iterable(training_sequences(samples)))
    return Comparison(split, found, test, warm, len(catalogue), kinds, spec.seed, config.resamples)
