"""Stage: pair-wise GRPO of the aggregator, Part B of the judge (S-GRec, arXiv 2602.10606), Part A frozen.

The scorer of the stage that `scorer` names scores both items of every pair once, those of training as it would had it
not learnt of their user, where that is known (`parts.crossed_of`). The model first learns to write any vector of
levels, all as likely: its expected weights are uniform then, and the KL to that start is what it gives up of the
entropy of its levels. Then it draws `group` vectors for a user state, and a vector earns the share of that state's
pairs that it orders rightly, strictly. Training ends when pairs of users that are held back are ordered no better for
`policy.patience` checks (INFERRED).

Gate: on the validation pairs surely (95 %, one-sided, bootstrapped by user) better than uniform weights, and no worse
than one vector for everybody that was fitted on the training pairs, where that is surely better too. Else this vector
is handed on where it is surely better, and uniform weights where it is not. `aggregators.json` and `gate.json` say how
all fitted weights do on the same pairs. A tie counts a half there, or breaking ties by a guess would seem a gain. A
model whose best round is its start has learnt nothing of users and is refused, whatever chance says for it.

Reads `judge_training_set`, `judge_pairs`, and what `teach` and the scorer's stage left; writes `aggregator/`. Lost on a
kill: the steps or rounds since the last checkpoint. Safe to run twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.core.backbone import BackboneConfig, build_backbone
from training.core.embedded import local_folder
from training.core.errors import LeftOut
from training.core.files import new_folder, write_json
from training.core.prompts import FENCES
from training.core.stage import GATE_FILE, StageResult, StageSpec, is_main_process, resolve_config
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.semantic_judge.aggregator import LanguageAggregator, LevelWriter, save_aggregator
from training.semantic_judge.aggregator_rows import GLOBAL, MODEL, PERSONAL, UNIFORM, Row, compared
from training.semantic_judge.aggregator_training import AggregatorTraining, Settings
from training.semantic_judge.contests import Contests, by_users
from training.semantic_judge.example_tables import PAIRS, read_pairs
from training.semantic_judge.examples import Catalogue, Examples, Floats, Pairs, States
from training.semantic_judge.judge import Aggregator, OneVector, Scorer, Uniform
from training.semantic_judge.pair_regression import PairRegression
from training.semantic_judge.parts import AGGREGATOR, crossed_of, load_scorer
from training.semantic_judge.taught import Taught
from training.semantic_judge.user_prompt import wording

_ROWS_FILE = "aggregators.json"
_UNLEARNT = "no round orders the pairs that were held back better than the start, which knows no user"


@dataclass(frozen=True)
class Config:
    """`scorer`: the stage whose Part A scores the pairs. `pairs`: at most so many of training, drawn by seed.

    `held_back`: the share of training users whose pairs choose the best round. A backbone without a path has a text
    tokenizer of `vocabulary` tokens; a text in a prompt is cut to `text_tokens`.
    """

    scorer: str = "evidence"
    pairs: int = 40_000
    held_back: float = 0.1
    vocabulary: int = 1024
    text_tokens: int = 48
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    training: Settings = field(default_factory=Settings)


def main(spec: StageSpec) -> StageResult:
    """Train, compare, hold the gate, write `aggregator/`, `aggregators.json` and `gate.json`."""
    config = resolve_config(spec, Config)
    taught = Taught.load(spec)
    folder = spec.artifact(config.scorer)
    scorer, crossed = load_scorer(folder, taught.evidence), crossed_of(folder)
    return train(spec, config, scorer, taught.examples, read_pairs(spec, taught.examples), crossed)


def train(
    spec: StageSpec,
    config: Config,
    scorer: Scorer,
    examples: Examples,
    pairs: Pairs,
    crossed: Floats | None = None,
) -> StageResult:
    """The stage, with Part A and the tables in hand; `crossed` [n, K]: see `parts.crossed_of`."""
    states, catalogue = examples.cases.states, examples.cases.catalogue
    learnt, valid = _contests(spec, config, scorer, examples, pairs, crossed)
    held = by_users(learnt.of_users(states), config.held_back, spec.seed)
    vocabulary = Vocabulary.create(_tokenizer(config, catalogue, states, wording(scorer.aspects)), {}, FENCES)
    writer = LevelWriter(vocabulary, tuple(scorer.aspects), config.text_tokens)
    learner = build_backbone(config.backbone, vocabulary, spec.seed)
    training = AggregatorTraining(learner, writer, states, catalogue, spec.seed, spec.out_dir, spec.hash)
    trained = training.train(learnt.chosen(~held), learnt.chosen(held), config.training)
    model = LanguageAggregator(learner, writer)
    vector = OneVector(tuple(scorer.aspects), PairRegression.fit(learnt, states, catalogue, personal=False).shares)
    aggregators: dict[str, Aggregator] = {
        UNIFORM: Uniform(scorer.aspects),
        GLOBAL: vector,
        PERSONAL: PairRegression.fit(learnt, states, catalogue, personal=True),
        MODEL: model,
    }
    rows = {row.name: row for row in compared(aggregators, valid, states, catalogue, spec.seed)}
    reason = trained.left_out or _refused(rows, trained.best_round)
    _hand_on(spec, model, vector, rows, reason)
    figures = {"start_gap": trained.start_gap, "rounds": trained.rounds, "best_round": trained.best_round}
    figures |= {"pairs": len(learnt), "equal_pairs": learnt.equal, "valid_pairs": len(valid)}
    figures |= {"valid_equal_pairs": valid.equal, "accepted": not reason}
    for name, row in rows.items():
        told = {"pair_auc": row.auc[0], "pair_accuracy": row.accuracy[0], "evenness": row.evenness}
        figures |= {f"{metric}.{name}": value for metric, value in told.items()}
    return StageResult({name: float(value) for name, value in figures.items()}, resumed_from=trained.resumed_from)


def _contests(
    spec: StageSpec, config: Config, scorer: Scorer, examples: Examples, pairs: Pairs, crossed: Floats | None
) -> tuple[Contests, Contests]:
    """What is learnt and what the gate is held on. LeftOut where there is nothing of one of them."""
    train = pairs.of_subset("train")
    drawn = np.sort(np.random.default_rng(spec.seed).permutation(len(train))[: config.pairs])
    learnt, cases = train.chosen(drawn), examples.cases
    told = scorer.aspects
    seen = Contests.of(learnt, cases, scorer) if crossed is None else Contests.by(learnt, cases, crossed, told)
    found = (seen, Contests.of(pairs.of_subset("valid"), cases, scorer))
    for name, own in zip(("training", "validation"), found, strict=True):
        if len(set(own.of_users(examples.cases.states))) < 2:
            raise LeftOut(
                f"there are no {name} pairs of two users that weights could order",
                where=PAIRS,
                why=f"{len(own)} pairs differ in their aspect scores, {own.equal} do not",
                do="wait for more feedback; until then all aspects count the same",
            )
    return found[0], found[1]


def _tokenizer(config: Config, catalogue: Catalogue, states: States, wording: str) -> PreTrainedTokenizerBase:
    """The backbone's own tokenizer, or a small one trained on titles, profiles and the words of every prompt."""
    if config.backbone.path is not None:
        return AutoTokenizer.from_pretrained(local_folder(config.backbone.path), local_files_only=True)
    texts = {item.title for item in catalogue.items} | set(states.profiles)
    told = sorted(text for text in texts if text)
    return train_text_tokenizer([*told, *[wording] * len(told)], config.vocabulary)


def _refused(rows: Mapping[str, Row], best_round: int) -> str:
    """Why the model is not handed on; empty where it is."""
    uniform, vector, model = rows[UNIFORM], rows[GLOBAL], rows[MODEL]
    if model.surely > 0:  # a NaN is not
        if vector.surely > 0 and vector.auc[0] > model.auc[0]:
            return f"one vector for everybody orders pairs better: {model.auc[0]:.4f} to {vector.auc[0]:.4f}"
        return "" if best_round else _UNLEARNT
    figures = f"{uniform.auc[0]:.4f} to {model.auc[0]:.4f}, at worst {model.surely:+.4f} (95%)"
    return f"pairs are not surely ordered better than by uniform weights: {figures}"


def _plain(rows: Mapping[str, Row], vector: OneVector) -> tuple[OneVector | Uniform, str]:
    """What needs no user to be known, and which row it is."""
    return (vector, GLOBAL) if rows[GLOBAL].surely > 0 else (Uniform(vector.aspects), UNIFORM)


def _hand_on(
    spec: StageSpec, model: LanguageAggregator, vector: OneVector, rows: Mapping[str, Row], reason: str
) -> None:
    """Leave behind the model, or for this `reason` what needs no user to be known, and the table of all rows."""
    if not is_main_process():
        return
    plain, name = _plain(rows, vector)
    with new_folder(spec.out_dir / AGGREGATOR) as scratch:
        save_aggregator(plain if reason else model, scratch)
    best = max(rows.values(), key=lambda row: row.auc[0])
    record = {
        "accepted": not reason, "reason": reason, "metric": "pair_auc", "handed_on": name if reason else MODEL,
        "note": f"{best.name} orders the validation pairs best: {best.auc[0]:.4f}",
        "before": rows[UNIFORM].auc[0], "after": rows[MODEL].auc[0], "lower": rows[MODEL].surely,
    }  # fmt: skip
    told = {"origin": spec.tables[PAIRS].origin, "rows": [asdict(row) for row in rows.values()]}
    write_json(spec.out_dir / _ROWS_FILE, told)
    write_json(spec.out_dir / GATE_FILE, record)
