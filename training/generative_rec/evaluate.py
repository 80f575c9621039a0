"""Stage: every model and baseline on the same test samples, the same candidates (the whole catalogue), the same seed.

Writes the table `model_metrics` (means with 95 % intervals by user, by slice), the table `eval_ranks` (the rank of the
truth per model and sample, null where it is not among the first `depth`: what gates compare pair by pair), and
`model/`, the packaged recommender. A list ends at `depth` for every row, so MRR is cut there too.

Both tables name the split of each line. The time split decides. Leave-one-out stands beside it for the comparison with
papers, with every row fitted anew on its training part: a model of the time split has seen leave-one-out's test items,
so a trained model has a row there only where its stage trained one for it (`protocols` of `sft`).

What the rungs' own gates decided is in `model_metrics` too, as split `training`: a row whose rungs were left out has
the weights of the row that they started from, and so its figures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.core.errors import DataError
from training.core.metrics import rank_of
from training.core.progress import Progress
from training.core.stage import StageResult, StageSpec, resolve_config
from training.generative_rec.baselines.base import Known, Ranking, Recommender
from training.generative_rec.baselines.rows import COUNTED, BaselineName, rows
from training.generative_rec.baselines.sasrec import SASRecConfig
from training.generative_rec.catalogue import read_kinds
from training.generative_rec.comparison import Comparison, Row, flat, metrics_table, rung_lines
from training.generative_rec.item_codes import read_codes
from training.generative_rec.rungs import read_rungs
from training.generative_rec.samples import (
    NextItem,
    Protocol,
    before_held_out,
    check_known,
    model_folder,
    of_part,
    read_samples,
    refuse_other_split,
    sequences_by_user,
    training_sequences,
)
from training.generative_rec.serve import Recommender as Generative
from training.generative_rec.serve import Serving, package

TABLE = "next_item_training_set"
_CHUNK = 256


@dataclass(frozen=True)
class Config:
    """`models`: the stages that trained them, in the order of the rows, each with the stage of its semantic ids.

    The last one is packaged. `baselines`: of each split that is measured; the first split needs every model.

    `rank_own`: may a user's own items be ranked (same for all rows). `samples`: measure at most so many test samples of
    a split, of users drawn with the seed.
    """

    models: Mapping[str, str] = field(default_factory=lambda: {"sft": "semantic_ids"})
    baselines: Mapping[Protocol, tuple[BaselineName, ...]] = field(
        default_factory=lambda: {"time": (*COUNTED, "sasrec"), "leave_one_out": COUNTED}
    )
    rank_own: bool = True
    depth: int = 20
    samples: int | None = None
    resamples: int = 1000
    serving: Serving = field(default_factory=Serving)
    sasrec: SASRecConfig = field(default_factory=SASRecConfig)


def main(spec: StageSpec) -> StageResult:
    """Measure all rows on both splits; package the last model."""
    config = resolve_config(spec, Config)
    catalogue = sorted(read_codes(spec.artifact(list(config.models.values())[-1])))
    # Checkpoints are loaded first, so that a bad one costs no training time.
    trained = {protocol: _trained(spec, config, protocol) for protocol in config.baselines}
    found = [
        _compare(spec, config, protocol, catalogue, baselines, trained[protocol])
        for protocol, baselines in config.baselines.items()
        if baselines or trained[protocol]
    ]
    return _write(spec, found)


def chosen_samples(test: Sequence[NextItem], limit: int | None, seed: int) -> list[NextItem]:
    """All of `test`, or the samples of users in a seeded order, cut at `limit`."""
    if not test:
        raise DataError("there is no test sample", where=TABLE, do="move the cut dates of the split")
    if limit is None or len(test) <= limit:
        return list(test)
    users = sorted({sample.user_id for sample in test})
    place = {users[row]: order for order, row in enumerate(np.random.default_rng(seed).permutation(len(users)))}
    return sorted(test, key=lambda sample: place[sample.user_id])[:limit]


def _trained(spec: StageSpec, config: Config, protocol: Protocol) -> dict[str, Recommender]:
    """The models that were trained on this split, packaged into the folder that they have in their stage.

    Models with the same weights and ids are one recommender, under each of their names.
    """
    name, found = model_folder(protocol), dict[str, Recommender]()
    loaded: dict[tuple[str, str], Recommender] = {}
    for model, codes in config.models.items():
        folder = spec.artifact(model) / name
        if protocol == next(iter(config.baselines)) or folder.is_dir():
            refuse_other_split(spec.artifact(codes), protocol)
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
    protocol: Protocol,
    catalogue: Sequence[str],
    baselines: Sequence[BaselineName],
    trained: Mapping[str, Recommender],
) -> Comparison:
    samples = read_samples(spec, protocol, TABLE)
    check_known(samples, catalogue)
    test, kinds = chosen_samples(of_part(samples, "test"), config.samples, spec.seed), read_kinds(spec, catalogue)
    valid, sequences = of_part(samples, "valid"), training_sequences(samples)
    pasts, fits = sequences_by_user(before_held_out(samples)), rows(config.sasrec)
    known = Known(catalogue, sequences, pasts, valid, config.rank_own, spec.seed)
    models = ((name, fits[name](known)) for name in baselines)
    measured, found = dict[Recommender, Row](), list[Row]()
    for name, model in chain(models, trained.items()):
        if model not in measured:
            measured[model] = _measure(name, model, test, config, frozenset(catalogue))
        found.append(replace(measured[model], model=name))
    warm = frozenset(chain.from_iterable(sequences))
    return Comparison(protocol, found, test, warm, len(catalogue), kinds, spec.seed, config.resamples)


def _measure(
    name: str, recommender: Recommender, test: Sequence[NextItem], config: Config, catalogue: frozenset[str]
) -> Row:
    # What a user does on one day are several questions with one history, and so one list.
    asked, found = list(dict.fromkeys((sample.user_id, sample.history) for sample in test)), list[Ranking]()
    with Progress(len(asked), f"evaluate {name}", "question") as progress:
        for start in range(0, len(asked), _CHUNK):
            users, histories = zip(*asked[start : start + _CHUNK], strict=True)
            found += recommender.recommend(histories, config.depth, users=users, rank_own=config.rank_own)
            progress.advance(len(histories))
    answers = {question: [item for item, _ in line] for question, line in zip(asked, found, strict=True)}
    lists = [answers[sample.user_id, sample.history] for sample in test]
    invented = {item for line in lists for item in line} - catalogue
    if invented:
        raise AssertionError(f"{name} recommended items that do not exist: {sorted(invented)[:5]}")
    ranks = np.array([rank_of(s.item_id, line) for s, line in zip(test, lists, strict=True)])
    return Row(name, lists, ranks, recommender.choice)


def _write(spec: StageSpec, found: Sequence[Comparison]) -> StageResult:
    """Metrics of the time split keep their names; those of the other one begin with its own."""
    origin, metrics = spec.tables[TABLE].origin, dict[str, float]()
    means, ranks = list[pa.Table](), list[pa.Table]()
    for comparison in found:
        lines = comparison.lines()
        means.append(comparison.metrics_table(lines, origin))
        ranks.append(comparison.ranks_table())
        sizes = {"test_samples": float(len(comparison.test)), "catalogue": float(comparison.catalogue)}
        own = {**flat(lines), **comparison.differences(), **sizes}
        prefix = "" if comparison.split == "time" else f"{comparison.split}."
        metrics |= {f"{prefix}{name}": value for name, value in own.items()}
    rungs = rung_lines(read_rungs(spec))
    metrics |= {f"{line['model']}.{line['metric']}": line["value"] for line in rungs}
    newest = max(sample.as_of for comparison in found for sample in comparison.test)
    means.append(metrics_table(rungs, origin, "training", newest))
    tables = {"model_metrics": pa.concat_tables(means), "eval_ranks": pa.concat_tables(ranks)}
    return StageResult(metrics, {name: (_write_table(spec, name, table),) for name, table in tables.items()})


def _write_table(spec: StageSpec, name: str, table: pa.Table) -> str:
    relative = f"tables/{name}/part-0.parquet"
    (spec.out_dir / relative).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, spec.out_dir / relative)
    return relative
