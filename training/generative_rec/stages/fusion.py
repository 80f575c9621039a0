"""Stage: the shop's ranker learns anew how to mix its signals, with the generator as one more of them.

The newest ranker's signals are fitted on the training part, and so is the generator: of the validation part neither has
learnt (the generator's epoch was chosen there), and most of its users are what the mixture is learnt from. Leaves
`model/`, the fused recommender, and `refit/`, the same ranker learnt from the same users without the generator: what
the generator adds is the difference of the two, not of `model/` and the ranker, which has learnt of older events.

Left out where no ranker or no generator has been trained, and where no candidate was taken; then the generator alone is
served. Lost on a kill: all; it takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.fusion import package as package_fused
from training.generative_rec.fusion import with_generator
from training.generative_rec.ranker_view import RankerView
from training.generative_rec.serve import Recommender, Serving, package
from training.next_item.samples import Split, model_folder, of_catalogue, read_samples, refuse_other_split
from training.ranker.bundle import Bundle
from training.ranker.learner import LearnerConfig, Ranker
from training.ranker.parts import parted
from training.ranker.serve import package as package_ranker
from training.ranker.shop import labelled


@dataclass(frozen=True)
class Config:
    """`model`: the stage of the generator, `codes`: of its semantic ids. A `share` of the validation users stops and
    calibrates, the others are learnt from: at most so many `questions` and `stop_questions`."""

    model: str = "sft"
    codes: str = "semantic_ids"
    split: Split = "time"
    share: float = 0.15
    questions: int = 20000
    stop_questions: int = 5000
    serving: Serving = field(default_factory=lambda: Serving(beams=100))
    learner: LearnerConfig = field(default_factory=LearnerConfig)


def main(spec: StageSpec) -> StageResult:
    """Learn both mixtures, leave `model/` and `refit/`."""
    config = resolve_config(spec, Config)
    codes, generator = spec.artifact(config.codes), spec.out_dir / "generator"
    refuse_other_split(codes, config.split)
    bundle = RankerView.of(spec, config.split).row.bundle
    package(spec.artifact(config.model) / model_folder(config.split), codes, config.serving, generator)
    fused, until = _ranker(spec, config, with_generator(bundle, Recommender.load(generator), config.serving.beams))
    package_fused(bundle.with_ranker(fused, until), generator, spec.out_dir / "model")
    refit, until = _ranker(spec, config, bundle)
    package_ranker(bundle.with_ranker(refit, until), spec.out_dir / "refit")
    return StageResult({"trees": float(fused.trees.num_trees()), "refit.trees": float(refit.trees.num_trees())})


def _ranker(spec: StageSpec, config: Config, bundle: Bundle) -> tuple[Ranker, int]:
    """The mixture, and the last day that it has learnt of."""
    samples = of_catalogue(read_samples(spec, config.split), bundle.catalogue)
    parts = parted(samples, config.split, "validation", config.share, spec.seed)
    learnt = labelled(bundle, samples, parts.learn, config.questions, spec.seed, answered=True)
    stop = labelled(bundle, samples, parts.stop, config.stop_questions, spec.seed, answered=False)
    until = int(parts.learn.days[parts.learn.rows].max())
    return Ranker.fit(learnt, stop, config.learner, spec.seed), until
