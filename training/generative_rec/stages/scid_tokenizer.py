"""Stage: semantic-collaborative ids of items and users, by the dual tokenizer of Align3GR.

Reads `next_item_training_set`, `items` and the artifact `collaborative`. Writes `codes.parquet` (item_id, codes: one
trie leaf per item, the form that `semantic_ids` writes; also the table `item_codes`), `user_codes.parquet` (user_id,
codes: users may share; also `user_codes`), `early_user_codes.parquet` (the same of users as they were at the first half
of their items: what SFT trains with), `tokenizer.safetensors` and `quantizer.safetensors` (the item codebooks).
Is left out, with the figures logged, where codes collide or lie idle (`Gate`), and before any training where the shop
is too small for codes (`code_sizes`). Lost on a kill: the texts of one chunk, the
steps since the last checkpoint. A retry goes on from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from training.core.catalogue import item_texts, read_catalogue
from training.core.checkpoint import save_weights
from training.core.errors import LeftOut
from training.core.stage import MetricsLog, StageResult, StageSpec, resolve_config
from training.generative_rec.code_sizes import refuse_small
from training.generative_rec.interactions import Interactions, held_out_pairs
from training.generative_rec.item_codes import (
    CODES_FILE,
    EARLY_CODES_FILE,
    USER_CODES_FILE,
    codebook_sizes,
    read_user_codes,
)
from training.generative_rec.quantizers import unique_leaves
from training.generative_rec.scid.collisions import SinkhornConfig, collision_rate, spread
from training.generative_rec.scid.inputs import Inputs, TextConfig, build_inputs
from training.generative_rec.scid.model import DualTokenizer, ScConfig, Side
from training.generative_rec.scid.report import covisit_report, neighbour_report, side_report
from training.generative_rec.scid.residual_quantizer import QuantizerConfig
from training.generative_rec.scid.training import TokenizerData, TokenizerTraining, TrainingConfig, codes_of
from training.next_item.samples import (
    TABLE,
    Split,
    before_held_out,
    of_catalogue,
    read_samples,
    refuse_other_split,
)

_REPORTED_ROWS = 1000


@dataclass(frozen=True)
class Gate:
    """What codes must reach (INFERRED). Shares of a level are of the codes that it has.

    `item_collisions`: the highest collision rate of items after Sinkhorn, before leftovers get their further code,
    beyond the items that no code could tell apart (`told_alike`); in a small catalogue `colliding` items may collide
    all the same, as a share of 60 items allows none.
    `level_1_usage`: the lowest share of first codes in use, `perplexity`: the lowest share at each level; both sides.
    """

    item_collisions: float = 0.01
    colliding: int = 5
    level_1_usage: float = 0.95
    perplexity: float = 0.2


@dataclass(frozen=True)
class Config:
    """Settings of the stage. `sources`, `split` and `min_events` must be those of `collaborative`."""

    split: Split = "time"
    sources: tuple[str, ...] = ()
    min_events: int = 2
    text: TextConfig = field(default_factory=TextConfig)
    sc: ScConfig = field(default_factory=ScConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sinkhorn: SinkhornConfig = field(default_factory=SinkhornConfig)
    gate: Gate = field(default_factory=Gate)


def main(spec: StageSpec) -> StageResult:
    """Train the tokenizer, give every item and every user of the training part its codes, hold the gate."""
    config = resolve_config(spec, Config)
    refuse_other_split(spec.artifact("collaborative"), config.split)
    items = read_catalogue(spec, config.sources, TABLE)
    ids = [item["item_id"] for item in items]
    samples = of_catalogue(read_samples(spec, config.split), ids)
    known = Interactions.of_training(samples, ids, config.min_events)
    refuse_small(len(ids), len(known.user_ids))
    pairs = held_out_pairs(samples, "valid", known)
    told = Interactions.of_training(before_held_out(samples), ids, 0)
    inputs = build_inputs(spec, items, samples, known, told, config.text)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = TokenizerData.of(inputs, known, pairs, device)
    training = TokenizerTraining(build_model(inputs, config, spec.seed).to(device), data, config.training, spec.seed)
    chosen, switch, resumed = training.train(spec.out_dir, spec.hash)
    facts = {
        "users_without_profile": float(inputs.users_without_profile),
        "switch_step": float(switch),
        "chosen_step": float(chosen.step),
        "valid_u2i": chosen.valid_loss,
    }
    if config.text.semantics == "text":
        texts = item_texts(items, config.text.fallback_text)
        facts["item.told_alike"] = told_alike(texts, training.model.item.quantizer.codes)
    metrics = facts | _write_codes(spec, training.model.cpu(), data, config, told, torch.cat(inputs.asked, dim=1))
    _write_early_codes(spec, training.model, torch.cat(inputs.early, dim=1), known.first_halves())
    MetricsLog(spec.out_dir / "metrics.jsonl").append(config.training.steps, **metrics)
    hold_gate(metrics, config.gate)
    return StageResult(metrics, {"item_codes": (CODES_FILE,), "user_codes": (USER_CODES_FILE,)}, resumed)


def build_model(inputs: Inputs, config: Config, seed: int) -> DualTokenizer:
    """The untrained tokenizer for these inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        user, item = (Side(parts, config.sc, config.quantizer) for parts in (inputs.users, inputs.items))
    return DualTokenizer(user, item)


def told_alike(texts: Sequence[str], codes: int) -> float:
    """The share of items with the very text of others, beyond the `codes` of a level that could tell those apart."""
    return sum(max(0, count - codes) for count in Counter(texts).values()) / len(texts)


def hold_gate(metrics: Mapping[str, float], gate: Gate) -> None:
    """LeftOut that names each figure outside of the gate."""
    faults, most = [], max(gate.item_collisions, gate.colliding / metrics["items"])
    collided = metrics["item.collision_rate"] - metrics.get("item.told_alike", 0.0)
    if collided > most:
        faults.append(f"item.collision_rate {collided:.4f} > {most:.4g}")
    for side in ("item", "user"):
        floors = {f"{side}.usage.level_1": gate.level_1_usage}
        floors |= {name: gate.perplexity for name in metrics if name.startswith(f"{side}.balance.")}
        faults += [f"{name} {metrics[name]:.3f} < {floor}" for name, floor in floors.items() if metrics[name] < floor]
    if faults:
        raise LeftOut(
            "the codes failed their gate",
            why="; ".join(faults),
            do="train longer, use more codes or levels, or correct the gate; metrics.jsonl has all figures",
        )


def _write_codes(
    spec: StageSpec, model: DualTokenizer, data: TokenizerData, config: Config, told: Interactions, users: torch.Tensor
) -> dict[str, float]:
    """`users` [rows, width]: what may be known of the users of `told` when they are asked about."""
    items = data.items.cpu()
    item_codes, residuals = codes_of(model.item, items)
    user_codes, _ = codes_of(model.user, users)
    before = collision_rate(item_codes)
    item_codes, rounds = spread(item_codes, residuals[:, -1], model.item.quantizer.books[-1].detach(), config.sinkhorn)
    leaves = unique_leaves(item_codes.numpy(), data.known.item_ids)
    _write_table(spec, CODES_FILE, "item_id", data.known.item_ids, leaves)
    _write_table(spec, USER_CODES_FILE, "user_id", told.user_ids, user_codes.tolist())
    save_weights(model, spec.out_dir / "tokenizer.safetensors")
    books = {f"codebook.{level}": book.detach().clone() for level, book in enumerate(model.item.quantizer.books)}
    save_file(books, spec.out_dir / "quantizer.safetensors")
    metrics = {
        "items": float(len(items)),
        "users": float(len(users)),
        "item.collision_rate_before_sinkhorn": before,
        "item.sinkhorn_rounds": float(rounds),
        "item.further_codes": float(sum(len(leaf) > model.item.quantizer.levels for leaf in leaves)),
    }
    for name, side, inputs, codes in (("item", model.item, items, item_codes), ("user", model.user, users, user_codes)):
        asked = torch.arange(0, len(inputs), max(1, len(inputs) // _REPORTED_ROWS))
        report = side_report(side, inputs, codes) | neighbour_report(side, inputs, codes, asked)
        if name == "item":
            report |= covisit_report(side, inputs, codes, data.known, asked)
        metrics |= {f"{name}.{key}": value for key, value in report.items()}
    return metrics


def _write_early_codes(spec: StageSpec, model: DualTokenizer, early: torch.Tensor, halves: Interactions) -> None:
    """A code that no user has in the end has no token: whoever had it then goes without."""
    codes, sizes = codes_of(model.user, early)[0], codebook_sizes(read_user_codes(spec.out_dir))
    spoken = (codes < torch.tensor(sizes)).all(dim=1).tolist()
    ids = list(compress(halves.user_ids, spoken))
    _write_table(spec, EARLY_CODES_FILE, "user_id", ids, list(compress(codes.tolist(), spoken)))


def _write_table(spec: StageSpec, file: str, key: str, ids: Sequence[str], codes: Sequence[Sequence[int]]) -> None:
    schema = pa.schema([(key, pa.string()), ("codes", pa.list_(pa.int32()))])
    pq.write_table(pa.table([list(ids), list(codes)], schema=schema), spec.out_dir / file)
