"""The two phases of the dual tokenizer: first the space is settled by behaviour alone, then the codes are learnt.

Phase 1 has gamma 0: quantizers get no gradient, so not even weight decay moves them. The switch comes when the
validation loss has not improved for `patience` checks, or at `switch_share` of the steps (both INFERRED: the source
gives no rule). There the weights of the best check come back, and k-means starts the codebooks, as the space has moved
until then. Phase 2 ends where its last `patience` checks could not be kept: the loss of behaviour, which it goes on
learning, is overfitted long before 20,000 steps on a shop of some ten thousand items.

L_RQ trains the quantizers and not the SC encoders (INFERRED). Its gradient in z pushes latents away from their codes,
to where a fixed target would be met; but the target is z, which moves along. With it, L_RQ of Beauty's items rose from
9 to 40 in 200 steps, and the validation loss from 3.46 to 4.19.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.core.checkpoint import load_weights, save_weights
from training.core.stage import CHECKPOINTS, MetricsLog
from training.core.steps import Steps, drawn
from training.generative_rec.interactions import Interactions
from training.generative_rec.scid.choice import Check, choose, may_win
from training.generative_rec.scid.collisions import collision_rate
from training.generative_rec.scid.inputs import Inputs
from training.generative_rec.scid.model import DualTokenizer, Side, u2i_loss

_BATCH, _REVIVAL, _SWITCH, _VALID = range(4)
_ROWS_AT_ONCE, _ALL = 8192, 0.999
_SPACE = "space.safetensors"


@dataclass(frozen=True)
class Weights:
    """Of the joint loss in one phase."""

    alpha: float
    gamma: float


@dataclass(frozen=True)
class TrainingConfig:
    """Batches are of `batch_size` observed pairs; `negatives` are items of the batch.

    Every `check_steps` the validation loss is measured, in phase 2 the collisions too. Kept are the weights of the
    check with the lowest item collision rate among those whose validation loss is at most `tolerance` (relative) above
    the best of phase 2 (INFERRED). A code that no batch has chosen in `revive_steps` is revived.

    `leave_out` (INFERRED) takes the item of a pair out of the user's input while the pair is learnt. That input is
    pooled over the very items that its pairs ask for: with them in it the loss is solved by looking the answer up.
    """

    leave_out: bool = True
    steps: int = 20000
    batch_size: int = 1024
    negatives: int = 60
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    phase_1: Weights = field(default_factory=lambda: Weights(1.0, 0.0))
    phase_2: Weights = field(default_factory=lambda: Weights(0.1, 1.0))
    switch_share: float = 0.25
    patience: int = 10
    check_steps: int = 200
    revive_steps: int = 100
    tolerance: float = 0.05
    valid_pairs: int = 4096
    checkpoint_steps: int = 500


@dataclass(frozen=True)
class TokenizerData:
    """Inputs of all users and items ([rows, width] each), who touched what, and validation pairs (users, items).

    An event is learnt from a row of `learnt`, which `rows` [events] names. `shares` [events, parts]: how much of each
    part of that input, of these `widths`, is the event's own item.
    """

    users: Tensor
    items: Tensor
    learnt: Tensor
    rows: Tensor
    shares: Tensor
    widths: tuple[int, ...]
    known: Interactions
    valid: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, inputs: Inputs, known: Interactions, valid: tuple[Tensor, Tensor], device: torch.device
    ) -> TokenizerData:
        """The parts of the inputs side by side, on the device that trains."""
        sides = (inputs.users, inputs.items, inputs.learnt)
        users, items, learnt = (torch.cat(parts, dim=1).to(device) for parts in sides)
        widths = tuple(part.shape[1] for part in inputs.items)
        return cls(users, items, learnt, inputs.rows, torch.stack(inputs.shares, dim=1), widths, known, valid)

    def pairs(self, events: Tensor, leave_out: bool) -> tuple[Tensor, Tensor]:
        """Inputs of the user and the item of each event; `leave_out` takes the item out of its user's input.

        A user with nothing else keeps it.
        """
        items = self.items[self.known.items[events]]
        if not leave_out:
            return self.users[self.known.users[events]], items
        users = self.learnt[self.rows[events]]
        share = self.shares[events].masked_fill(self.shares[events] > _ALL, 0.0).to(users.device)
        share = share.repeat_interleave(torch.tensor(self.widths, device=users.device), dim=1)
        return (users - share * items) / (1.0 - share), items


class TokenizerTraining:
    """One run: `train` leaves `model` with the weights of the chosen check."""

    def __init__(self, model: DualTokenizer, data: TokenizerData, config: TrainingConfig, seed: int) -> None:
        self.model, self._data, self._config, self._seed = model, data, config, seed
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def train(self, folder: Path, run: str) -> tuple[Check, int, int | None]:
        """Train to the end, from the last checkpoint if there is one.

        Returns the chosen check, the step of the switch, and the step that the run went on from.
        """
        config, log = self._config, MetricsLog(folder / "metrics.jsonl")
        steps = Steps(folder, run, self.model, self._optimizer, config.checkpoint_steps)
        resumed = steps.resume()
        log.rewind(steps.done)
        if resumed is None:
            steps.notes |= {"switch": None, "best": math.inf, "worse": 0, "checks": []}
        notes = steps.notes

        def step(number: int) -> float:
            late = number >= config.switch_share * config.steps
            if notes["switch"] is None and (late or notes["worse"] >= config.patience):
                notes.update(switch=number, worse=0)
                if notes["best"] < math.inf:
                    load_weights(self.model, folder / CHECKPOINTS / _SPACE)
                self.start_codebooks()
            parts = self.step(number, second=notes["switch"] is not None)
            if (number + 1) % config.check_steps == 0 or number + 1 == config.steps:
                self._check(number + 1, notes, parts, folder, log)
            return parts["loss"]

        steps.run(config.steps, "tokenizer", step)
        chosen = choose(_checks(notes), config.tolerance)
        load_weights(self.model, _file(folder, chosen.step))
        return chosen, int(notes["switch"]), resumed

    def step(self, number: int, *, second: bool) -> dict[str, float]:
        """One step of the first or the second phase; the parts of its loss."""
        config, data, source = self._config, self._data, drawn(self._seed, number, _BATCH)
        weights = config.phase_2 if second else config.phase_1
        events = torch.randint(len(data.known.items), (config.batch_size,), generator=source)
        users, items = data.known.users[events], data.known.items[events]
        among = torch.randperm(len(events), generator=source)[: config.negatives]
        self.model.train()
        own, touched = data.pairs(events, config.leave_out)
        user, item = self.model.user.encoder(own), self.model.item.encoder(touched)
        skip = data.known.touched(users.unsqueeze(1), items[among]).to(item.device)
        parts = {"u2i": u2i_loss(user, item, item[among], skip)}
        if weights.gamma > 0.0:
            # Cut off: the target of the rebuilding is z itself, and an encoder that is drawn to it moves it on.
            sides = {
                "rq_user": self.model.user.quantizer(user.detach()),
                "rq_item": self.model.item.quantizer(item.detach()),
            }
            parts |= {name: quantized.loss for name, quantized in sides.items()}
        loss = weights.alpha * parts["u2i"] + weights.gamma * sum(parts[name] for name in parts if name != "u2i")
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self._optimizer.step()
        revived = 0
        if weights.gamma > 0.0 and (number + 1) % config.revive_steps == 0:
            source = drawn(self._seed, number, _REVIVAL)
            revived = sum(
                side.quantizer.revive(sides[name].residuals, source)
                for name, side in (("rq_user", self.model.user), ("rq_item", self.model.item))
            )
        return {"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in parts.items()}, "revived": revived}

    def start_codebooks(self) -> None:
        """k-means over the latents of all users and of all items."""
        source = drawn(self._seed, 0, _SWITCH)
        for side, inputs in ((self.model.user, self._data.users), (self.model.item, self._data.items)):
            side.quantizer.start(side.embed(inputs), source)

    @torch.no_grad()
    def valid_loss(self) -> float:
        """L_U2I of the validation pairs, against the same negatives each time."""
        users, items = (rows[: self._config.valid_pairs] for rows in self._data.valid)
        among = torch.randperm(len(items), generator=drawn(self._seed, 0, _VALID))[: self._config.negatives]
        skip = self._data.known.touched(users.unsqueeze(1), items[among]) | (items.unsqueeze(1) == items[among])
        user, item = self.model.user.embed(self._data.users[users]), self.model.item.embed(self._data.items[items])
        return float(u2i_loss(user, item, item[among], skip.to(item.device)))

    def _check(self, step: int, notes: dict[str, Any], parts: dict[str, float], folder: Path, log: MetricsLog) -> None:
        valid = self.valid_loss()
        if notes["switch"] is None:
            better = valid < notes["best"]
            notes |= {"best": min(valid, notes["best"]), "worse": 0 if better else notes["worse"] + 1}
            if better:
                save_weights(self.model, folder / CHECKPOINTS / _SPACE)
            log.append(step, phase=1, valid_u2i=valid, **parts)
            return
        rates = {
            "collision_rate.user": collision_rate(codes_of(self.model.user, self._data.users)[0]),
            "collision_rate.item": collision_rate(codes_of(self.model.item, self._data.items)[0]),
        }
        log.append(step, phase=2, valid_u2i=valid, **parts, **rates)
        save_weights(self.model, _file(folder, step))
        notes["checks"].append(asdict(Check(step, valid, rates["collision_rate.item"])))
        kept = [check for check in _checks(notes) if may_win(check, _checks(notes), self._config.tolerance)]
        for check in set(_checks(notes)) - set(kept):
            _file(folder, check.step).unlink(missing_ok=True)
        notes["checks"] = [asdict(check) for check in kept]
        notes["worse"] = 0 if kept[-1].step == step else notes["worse"] + 1
        notes["enough"] = notes["worse"] >= self._config.patience


def codes_of(side: Side, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [rows, levels] and residuals [rows, levels, width] of all rows, on the CPU."""
    found = [side.quantizer.encode(side.embed(part)) for part in torch.split(inputs, _ROWS_AT_ONCE)]
    return torch.cat([codes for codes, _ in found]).cpu(), torch.cat([residuals for _, residuals in found]).cpu()


def _checks(notes: dict[str, Any]) -> list[Check]:
    return [Check(**check) for check in notes["checks"]]


def _file(folder: Path, step: int) -> Path:
    return folder / CHECKPOINTS / f"check-{step}.safetensors"
