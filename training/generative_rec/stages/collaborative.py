"""Stage: vectors of items and users from what people did, by a sequential recommender (DIN) on the training part.

Reads `next_item_training_set` and `items`; writes `collaborative.safetensors` (`items` [items, width], `users`
[users, width]) and the ids of the rows in `items.parquet` and `users.parquet`. An item's vector is its embedding row; a
user's is the attention-pooled rows of the user's TRAINING items: a vector that had seen validation or test items would
carry the answer into the user's code. Lost on a kill: the steps since the last checkpoint; a retry goes on from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from training.core.catalogue import read_catalogue
from training.core.checkpoint import load_weights, places, save_weights
from training.core.errors import LeftOut
from training.core.ranking import VALUES_IN_CACHE, rows_at_once
from training.core.stage import MetricsLog, StageResult, StageSpec, resolve_config
from training.core.steps import Steps, drawn
from training.generative_rec.code_sizes import refuse_small
from training.generative_rec.collaborative_vectors import CollaborativeVectors, pooled_users
from training.generative_rec.covisit_vectors import covisit_vectors
from training.generative_rec.din import DIN, sampled_softmax
from training.generative_rec.interactions import Interactions, padded_rows
from training.next_item.samples import TABLE, NextItem, Split, of_catalogue, of_subset, read_samples

T = TypeVar("T")
_VALID_SEED, _AT_ONCE = -1, 4


@dataclass(frozen=True)
class Config:
    """Settings of the stage; the defaults are those of the method's source, where it gives them.

    `min_events`: training items that a user must have; see `Interactions.of_training`. `negatives` per sample, drawn
    with probability ~ popularity ^ `negative_power` (0: uniform). The rate warms up over `warmup_steps`, then falls
    exponentially to `final_rate` at the last step. Every `check_steps` the loss of `valid_samples` validation samples
    chooses the weights to keep (INFERRED; the source takes those of step 4,000); `ranked_samples` of them are ranked
    against the whole catalogue at the end. `item_start`: of the item vectors, from counted co-visits (INFERRED: small
    sets teach an encoder that starts at random, as the source's does, fewer co-visits than counting knows).
    """

    split: Split = "time"
    sources: tuple[str, ...] = ()
    min_events: int = 2
    history: int = 20
    item_start: Literal["covisits", "random"] = "covisits"
    width: int = 32
    attention: tuple[int, ...] = (64, 16)
    head: tuple[int, ...] = (200, 80)
    negatives: int = 60
    negative_power: float = 0.0
    batch_size: int = 128
    steps: int = 4000
    learning_rate: float = 1e-3
    warmup_steps: int = 5000
    final_rate: float = 1e-6
    check_steps: int = 500
    valid_samples: int = 2048
    ranked_samples: int = 256
    checkpoint_steps: int = 500


def main(spec: StageSpec) -> StageResult:
    """Train the recommender, pool the users, rank some validation samples beside popularity."""
    config = resolve_config(spec, Config)
    item_ids = [item["item_id"] for item in read_catalogue(spec, config.sources, TABLE)]
    samples = of_catalogue(read_samples(spec, config.split), item_ids)
    known = Interactions.of_training(samples, item_ids, config.min_events)
    refuse_small(len(item_ids), len(known.user_ids))
    encoder = Encoder(known, of_subset(samples, "valid"), config, spec.seed)
    best_loss, resumed = encoder.train(spec.out_dir, spec.hash)
    users = pooled_users(encoder.item_vectors, known)
    CollaborativeVectors(known.item_ids, known.user_ids, encoder.item_vectors, users).save(spec.out_dir)
    counts = {
        "items": float(len(item_ids)),
        "items_never_seen": float((known.popularity == 0).sum()),
        "users": float(len(known.user_ids)),
        "users_with_one_event": float((known.starts.diff() == 1).sum()),
        "training_samples": float(len(known.targets())),
    }
    return StageResult({**counts, "valid_loss": best_loss, **encoder.ranked()}, resumed_from=resumed)


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then exponential decay to `final_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    return float(config.learning_rate * (config.final_rate / config.learning_rate) ** done)


class Encoder:
    """The recommender with its data: trained step by step, every step's batch and negatives drawn from its number."""

    def __init__(self, known: Interactions, validation: Sequence[NextItem], config: Config, seed: int) -> None:
        asked = [place for place, sample in enumerate(validation) if sample.history]
        if not len(known.targets()) or not asked:
            raise LeftOut(
                "there is nothing to train the collaborative encoder on or to validate it with",
                why=f"{len(known.targets())} training samples and {len(asked)} validation samples with a history",
                do="choose another split",
            )
        self._known, self._config, self._seed = known, config, seed
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = DIN(len(known.item_ids), config.width, config.attention, config.head)
            if config.item_start == "covisits":
                network.start_items(covisit_vectors(known, config.width))
        self._network = network.to(self._device)
        self._validation = [validation[place] for place in _spread(asked, config.valid_samples)]
        weight = known.popularity.clamp(min=1.0).double() ** config.negative_power
        self._cumulated, self._log_q = weight.cumsum(0) / weight.sum(), (weight / weight.sum()).log().float()

    @property
    def item_vectors(self) -> Tensor:
        """[items, width]."""
        return self._network.item.weight.detach().cpu()

    def train(self, folder: Path, run: str) -> tuple[float, int | None]:
        """Train to the end, from the last checkpoint if there is one; the network ends with its best weights.

        Returns the best validation loss, and the step that the run went on from.
        """
        config, log = self._config, MetricsLog(folder / "metrics.jsonl")
        optimizer = torch.optim.Adam(self._network.parameters(), lr=config.learning_rate, amsgrad=True)
        steps = Steps(folder, run, self._network, optimizer, config.checkpoint_steps)
        resumed = steps.resume()
        log.rewind(steps.done)
        _, best = places(folder)

        def step(number: int) -> float:
            rate = learning_rate(number, config)
            optimizer.param_groups[0]["lr"] = rate
            loss = self._step(number, optimizer)
            if (number + 1) % config.check_steps == 0 or number + 1 == config.steps:
                valid = self.valid_loss()
                log.append(number + 1, loss=loss, valid_loss=valid, learning_rate=rate)
                if valid < steps.notes.get("best", math.inf):
                    steps.notes["best"] = valid
                    save_weights(self._network, best)
            return loss

        steps.run(config.steps, "collaborative", step)
        load_weights(self._network, best)
        return float(steps.notes["best"]), resumed

    def _step(self, number: int, optimizer: torch.optim.Optimizer) -> float:
        config, source = self._config, drawn(self._seed, number)
        events = self._targets[torch.randint(len(self._targets), (config.batch_size,), generator=source)]
        self._network.train()
        loss = self._loss(self._known.histories(events, config.history), self._known.items[events], source)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach())

    @cached_property
    def _targets(self) -> Tensor:
        return self._known.targets()

    def _loss(self, histories: Tensor, targets: Tensor, source: torch.Generator) -> Tensor:
        chance = torch.rand(len(targets), self._config.negatives, generator=source, dtype=torch.float64)
        negatives = torch.searchsorted(self._cumulated, chance).clamp(max=len(self._log_q) - 1)
        candidates = torch.cat([targets.unsqueeze(1), negatives], dim=1).to(self._device)
        scores = self._network(histories.to(self._device), candidates)
        return sampled_softmax(scores, candidates, self._log_q.to(self._device))

    @torch.inference_mode()
    def valid_loss(self) -> float:
        """Sampled softmax on the validation samples, against the same negatives each time."""
        self._network.eval()
        histories, targets = self._held_out
        source, total = drawn(self._seed, _VALID_SEED), 0.0
        for rows in torch.split(torch.arange(len(targets)), self._config.batch_size):
            total += float(self._loss(histories[rows], targets[rows], source)) * len(rows)
        return total / len(targets)

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        ids, samples = self._known.item_ids, self._validation
        histories = padded_rows([sample.history for sample in samples], ids, self._config.history)
        return histories, padded_rows([[sample.item_id] for sample in samples], ids, 1)[:, 0]

    @torch.inference_mode()
    def ranked(self) -> dict[str, float]:
        """Recall of the truth in the whole catalogue, this model's and popularity's, on the same validation samples."""
        rows = _spread(list(range(len(self._validation))), self._config.ranked_samples)
        histories, targets = self._held_out[0][rows], self._held_out[1][rows]
        asked = list(zip(torch.split(histories, _AT_ONCE), torch.split(targets, _AT_ONCE), strict=True))
        popularity = self._known.popularity
        ranks = {
            "din": torch.cat([_ranks(self.scores(part), own) for part, own in asked]),
            "popularity": torch.cat([_ranks(popularity.expand(len(own), -1), own) for _, own in asked]),
        }
        return {
            f"{name}.recall@{k}": float((values <= k).float().mean())
            for name, values in ranks.items()
            for k in (10, 50)
        }

    @torch.inference_mode()
    def scores(self, histories: Tensor) -> Tensor:
        """Scores of the whole catalogue after histories [n, length]: [n, items].

        A pair of an item of a history and a candidate has a hidden layer of its own, so candidates go part by part.
        """
        network, own = self._network.eval(), histories.to(self._device)
        everything = torch.arange(len(self._known.item_ids), device=self._device)
        parts = torch.split(everything, rows_at_once(own.numel() * max(self._config.attention), VALUES_IN_CACHE))
        return torch.cat([network(own, part.expand(len(own), -1)).cpu() for part in parts], dim=1)


def _spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values, evenly spread."""
    stride = max(1, len(values) // count)
    return list(values[::stride][:count])


def _ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """1-based ranks of targets [n] in scores [n, items]; equal scores share the middle place."""
    own = scores.gather(1, targets.unsqueeze(1))
    return 1.0 + (scores > own).sum(dim=1) + ((scores == own).sum(dim=1) - 1) / 2
