"""Stage: the shop's ranker and the generator are mixed by two weights, of the one's score and of the other's places.

The newest ranker has learnt from the training part, and so has the generator; of the validation part neither has learnt
(what was chosen or stopped there are epochs and numbers of trees), and the mixture is learnt from it. Leaves `model/`,
the fused recommender. What the generator adds is the difference of the rows `fused` and `ranker`: the ranker's own
order stands wherever the generator says nothing.

Left out where no ranker or no generator has been trained, and where no candidate was taken; then the generator alone is
served. Lost on a kill: all; it takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from training.core.errors import LeftOut
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.fusion import GENERATOR, with_generator
from training.generative_rec.fusion import package as package_fused
from training.generative_rec.log_linear import LogLinear, Pool
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.serve import Recommender, Serving, package
from training.next_item.samples import (
    TABLE,
    Split,
    model_folder,
    of_catalogue,
    of_subset,
    read_samples,
    refuse_other_split,
)
from training.next_item.store_features import still_told
from training.ranker.shop import labelled


@dataclass(frozen=True)
class Config:
    """`model`: the stage of the generator, `codes`: of its semantic ids. At most so many `questions` of the validation
    part are learnt from, drawn with the seed."""

    model: str = "sft"
    codes: str = "semantic_ids"
    split: Split = "time"
    questions: int = 20000
    serving: Serving = field(default_factory=lambda: Serving(beams=100))


def main(spec: StageSpec) -> StageResult:
    """Learn the mixture, leave `model/`."""
    config = resolve_config(spec, Config)
    codes, generator = spec.artifact(config.codes), spec.out_dir / "generator"
    refuse_other_split(codes, config.split)
    row = RankerView.of(spec, config.split).row
    package(spec.artifact(config.model) / model_folder(config.split), codes, config.serving, generator)
    store = still_told(spec, TABLE, row.store_features)
    samples = of_catalogue(read_samples(spec, config.split, store=store), row.bundle.catalogue)
    valid = of_subset(samples, "valid")
    if not len(valid):
        raise LeftOut("there is no event of the validation part to learn the mixture from", do="wait for more events")
    beams = config.serving.beams
    fused = with_generator(row.bundle, Recommender.load(generator), beams)
    learnt = labelled(fused, samples, valid, config.questions, spec.seed, answered=False)
    mixture = LogLinear.fit(Pool(row.ranker, GENERATOR, beams), learnt)
    until = max(row.bundle.until, int(valid.days[valid.rows].max()))
    package_fused(
        replace(row.bundle, until=until, learnt_from="validation"), mixture, generator, spec.out_dir / "model"
    )
    by_ranker, by_generator = mixture.weights
    return StageResult({"by_ranker": by_ranker, "by_generator": by_generator})
