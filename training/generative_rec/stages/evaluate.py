"""Stage: every model and baseline on the same test samples, the same candidates (the whole catalogue), the same seed.

Writes the table `model_metrics` (means with 95 % intervals by user, by slice), the table `eval_values` (what each
sample adds to each of the `values`, by model: what gates compare pair by pair), and `model/`, the packaged recommender,
which describes itself. A list ends at `depth` for every row, so MRR is cut there too. A sample is what a user did with
an item on a day: twice is once (`samples.read_samples`), so each has one value.

Both tables name the split of each line. The time split decides. Leave-one-out stands beside it for the comparison with
papers, with every row fitted anew on its training part: a model of the time split has seen leave-one-out's test items,
so a trained model has a row there only where its stage trained one for it (`splits` of `sft`).

The rows beside the models are the signals of the shop's ranker and the ranker itself, as they are registered; where
none is, or for a split that it was not fitted on, the signals that cost seconds are fitted here. `fused` is what is
served: the ranker mixed with the generator (stage `fusion`).

A row whose stages were left out has the weights of the row that they started from, and so its figures; a model whose
stage made nothing has no row, and neither has a signal that the data is too little for: `gate.json` says why. Of the
signals and the ranker the one with the best NDCG@10 is packed in `baseline/`: where there is no champion, it makes the
nightly lists. Where nothing could be measured, as in a shop of one day, that is popularity over the training part.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from training.core.catalogue import read_catalogue, read_kinds
from training.core.errors import DataError, LeftOut
from training.core.files import new_folder, write_json
from training.core.metrics import METRICS
from training.core.stage import GATE_FILE, StageResult, StageSpec, resolve_config
from training.generative_rec.item_codes import read_codes
from training.generative_rec.serve import Serving, load, package
from training.next_item.comparison import Comparison, Row
from training.next_item.evaluation import best_of, chosen_samples, measured, write_comparisons
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
from training.next_item.store_features import still_told
from training.ranker.bundle import Bundle
from training.ranker.serve import POPULARITY, RANKER, newest, package_baseline, rows
from training.ranker.serve import package as package_ranker
from training.ranker.shop import Shop, read_items
from training.ranker.signals.fitting import SignalsConfig

SERVED = "fused"
"""The row of what is packaged."""


@dataclass(frozen=True)
class Config:
    """`models`: the stages that trained them, in the order of the rows, each with the stage of its semantic ids.

    Those whose stages were left out have no row. `fusion`: the stage that fused the last one with the ranker; what it
    made is packaged, or the last model where it was left out. `splits`: what is measured; the first needs every model.

    `values`: the metrics that `eval_values` has for each sample; those of the gate must be among them.

    `rank_own`: may a user's own items be ranked (same for all rows). `samples`: measure at most so many test samples of
    a split, of users drawn with the seed.
    """

    models: Mapping[str, str] = field(default_factory=lambda: {"sft": "semantic_ids"})
    fusion: str | None = None
    splits: tuple[Split, ...] = ("time", "leave_one_out")
    values: tuple[str, ...] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
    rank_own: bool = True
    depth: int = 20
    samples: int | None = None
    resamples: int = 1000
    serving: Serving = field(default_factory=Serving)

    @property
    def served(self) -> Serving:
        """How the model serves: its own items as it was measured."""
        return replace(self.serving, rank_own=self.rank_own)


def main(spec: StageSpec) -> StageResult:
    """Measure all rows on each split; package what is served and the best of the other rows."""
    config = resolve_config(spec, Config)
    there = {m: codes for m, codes in config.models.items() if not (spec.left_out(m) or spec.left_out(codes))}
    fusion = config.fusion if config.fusion and not spec.left_out(config.fusion) else None
    if unknown := set(config.values) - set(METRICS):
        raise DataError(f"{min(unknown)!r} is no metric of a sample", where="values", do=f"use {', '.join(METRICS)}")
    run = _Evaluation(spec, replace(config, models=there, fusion=fusion))
    # Checkpoints are loaded first, so that a bad one costs no training time.
    trained = {split: run.trained(split) for split in config.splits}
    found = list[Comparison]()
    for split in config.splits:
        with run.recorded(f"the {split} split"):
            found.append(run.compared(split, trained[split]))
    if run.left_out:
        words = "; ".join(f"without {name}: {why}" for name, why in run.left_out.items())
        ran = {"accepted": bool(found), "reason": "" if found else words, "note": words if found else ""}
        write_json(spec.out_dir / GATE_FILE, ran)
    result = write_comparisons(spec, found, config.values)
    run.pack_best(result.metrics)
    return replace(result, metrics={**result.metrics, "models": float(len(there))})


@dataclass(frozen=True)
class _Evaluation:
    """`left_out`: what could not be done for want of data, and why. `signals`: what stands beside the models, by split,
    with its folder."""

    spec: StageSpec
    config: Config
    left_out: dict[str, str] = field(default_factory=dict)
    signals: dict[Split, tuple[Path, Bundle]] = field(default_factory=dict)

    @contextmanager
    def recorded(self, name: str) -> Iterator[None]:
        """What cannot be done for want of data is left out, and it is noted why."""
        try:
            yield
        except LeftOut as refusal:
            self.left_out[name] = refusal.reason

    @cached_property
    def catalogue(self) -> list[str]:
        """The items of the last model's ids, or those that people act on where there is no model."""
        if self.config.models:
            return sorted(read_codes(self.spec.artifact(list(self.config.models.values())[-1])))
        return [item["item_id"] for item in read_catalogue(self.spec, (), TABLE)]

    def trained(self, split: Split) -> dict[str, Recommender]:
        """The models that were trained on this split, packaged into the folder that they have in their stage.

        Models with the same weights and ids are one recommender, under each of their names. What is served is the last
        row, and what the folder holds in the end.
        """
        spec, name, found = self.spec, model_folder(split), dict[str, Recommender]()
        loaded: dict[tuple[str, str], Recommender] = {}
        for model, codes in self.config.models.items():
            folder = spec.artifact(model) / name
            if split == self.config.splits[0] or folder.is_dir():
                refuse_other_split(spec.artifact(codes), split)
                package(folder, spec.artifact(codes), self.config.served, spec.out_dir / name)
                same = (codes, _hash_of_weights(folder))
                if same not in loaded:
                    loaded[same] = load(spec.out_dir / name)
                found[model] = loaded[same]
        return found | self._served(split, found)

    def _served(self, split: Split, models: Mapping[str, Recommender]) -> dict[str, Recommender]:
        """What is served, of the first split: what the fusion made; the last model where that was left out."""
        if split != self.config.splits[0] or not models:
            return {}
        if self.config.fusion is None:
            return {SERVED: list(models.values())[-1]}
        made, folder = self.spec.artifact(self.config.fusion) / "model", self.spec.out_dir / model_folder(split)
        with new_folder(folder) as scratch:
            shutil.copytree(made, scratch, dirs_exist_ok=True)
        return {SERVED: load(folder)}

    def compared(self, split: Split, trained: Mapping[str, Recommender]) -> Comparison:
        """All rows on the test samples of a split."""
        spec, config = self.spec, self.config
        every = {**rows(self._signals(split)[1]), **trained}
        asked = dict.fromkeys(chain.from_iterable(one.store_features for one in every.values()))
        samples = of_catalogue(read_samples(spec, split, store=still_told(spec, TABLE, asked)), self.catalogue)
        test = chosen_samples(of_subset(samples, "test"), config.samples, spec.seed)
        seen, found = dict[Recommender, Row](), list[Row]()
        for name, recommender in every.items():
            if recommender not in seen:
                seen[recommender] = measured(name, recommender, test, self.catalogue, config.depth, config.rank_own)
            found.append(replace(seen[recommender], model=name))
        warm, kinds = frozenset(chain.from_iterable(training_sequences(samples))), read_kinds(spec, self.catalogue)
        return Comparison(split, found, test, warm, len(self.catalogue), kinds, spec.seed, config.resamples)

    def _signals(self, split: Split) -> tuple[Path, Bundle]:
        """The registered ranker, if it was fitted on this split, or signals that are counted here; with the folder."""
        if split not in self.signals:
            self.signals[split] = self._registered(split) or self._counted(split)
        return self.signals[split]

    def _registered(self, split: Split) -> tuple[Path, Bundle] | None:
        folder = newest(self.spec.models.get(RANKER, ()))
        bundle = Bundle.load(folder) if folder else None
        if folder is None or bundle is None or bundle.split != split:
            self.left_out[RANKER] = (
                f"none has been trained for the {split} split: the signals that are counted stand in"
            )
            return None
        if bundle.rank_own != self.config.rank_own:
            raise DataError(
                "the ranker and this evaluation differ in whether a user's own items may be ranked",
                where=f"rank_own is {bundle.rank_own} in {folder} and {self.config.rank_own} here",
                do="give the stages `ranker` and `evaluate` the same `rank_own`",
            )
        self.left_out.update(bundle.fitted.chosen.left_out)
        return folder, bundle

    def _counted(self, split: Split) -> tuple[Path, Bundle]:
        folder = self.spec.out_dir / f"signals_{split}"
        if not folder.is_dir():
            samples = of_catalogue(read_samples(self.spec, split), self.catalogue)
            counted = SignalsConfig(sasrec=None)
            shop = Shop(read_items(self.spec), split, self.config.rank_own, self.spec.seed, signals=counted)
            package_ranker(shop.fitted(of_catalogue(samples, [item["item_id"] for item in shop.items])), folder)
        return folder, Bundle.load(folder)

    def pack_best(self, metrics: Mapping[str, float]) -> None:
        """What stands in for a champion: the best of the signals and the ranker; popularity where nothing is known."""
        split = self.config.splits[0]
        with suppress(LeftOut):  # no training sample
            folder, bundle = self._signals(split)
            best = best_of(rows(bundle), split, metrics)
            package_baseline(folder, best or POPULARITY, self.spec.out_dir / "baseline")


def _hash_of_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
