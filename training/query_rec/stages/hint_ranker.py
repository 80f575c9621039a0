"""Stage: the hint ranker, of the hints that the shop has shown; it goes on from the newest version, where there is one.

A version that has learnt of later days than these, or is built otherwise, is not gone on from: it would know the days
that are held out, or cannot be read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from training.core.errors import DataError
from training.core.files import new_folder
from training.core.stage import StageResult, StageSpec, is_main_process, resolve_config
from training.query_rec.calibration import log_loss
from training.query_rec.hint_examples import Hints, day_of, read_hints, read_known
from training.query_rec.hint_measures import auc
from training.query_rec.hint_network import NetworkConfig
from training.query_rec.hint_ranker import HintRanker, Training, TrainingConfig

MODEL = "hint_ranker"


@dataclass(frozen=True)
class Config:
    """`requests`: it learns of so many at most, the last ones; None: of all."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    requests: int | None = None


def main(spec: StageSpec) -> StageResult:
    """Learn, calibrate, and leave `model/`."""
    config = resolve_config(spec, Config)
    hints = read_hints(spec, config.network.length, config.network.buckets, config.requests)
    until = day_of(hints.parts["train"].days)
    start = _start(spec, config.network, until)
    training = Training(hints, config.network, config.training, spec.seed, spec.out_dir, spec.hash)
    ranker, resumed = training.train(until, start)
    ranker = HintRanker(ranker.network, ranker.facts, read_known(spec, until), hints.phrases)
    with new_folder(spec.out_dir / "model") as scratch:
        ranker.save(scratch)
    return StageResult(_metrics(ranker, hints, start), resumed_from=resumed)


def _start(spec: StageSpec, network: NetworkConfig, until: date) -> HintRanker | None:
    """The newest version that fits; the log says why another one does not."""
    versions = sorted(spec.models.get(MODEL, ()), key=lambda one: one.role != "challenger")
    for version in versions:
        why = ""
        try:
            found = HintRanker.load(Path(version.folder))
        except DataError as error:
            why = error.what
        else:
            if found.facts.network == network and date.fromisoformat(found.facts.until) <= until:
                return found
            why = (
                f"it has learnt of days up to {found.facts.until}"
                if found.facts.network == network
                else "it is built otherwise"
            )
        if is_main_process():
            sys.stderr.write(f"warning: version {version.version} is not gone on from: {why}\n")
    return None


def _metrics(ranker: HintRanker, hints: Hints, start: HintRanker | None) -> dict[str, float]:
    valid = hints.parts["valid"]
    chances = ranker.chances_of(valid.questions)
    sizes = {f"hints.{part}": float(len(own)) for part, own in hints.parts.items()}
    return {
        **sizes,
        "valid.log_loss": log_loss(chances, valid.clicked),
        "valid.auc": auc(chances, valid.clicked),
        "click_share": hints.share,
        "best_step": float(ranker.facts.steps),
        "warm_started": float(start is not None),
        "known_queries": float(len(ranker.known)),
    }
