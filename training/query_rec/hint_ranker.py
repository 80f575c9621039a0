"""The hint ranker: how likely a person clicks on a query, of any text, calibrated. The reward model of AIGQ's policies.

The logit z of the network is learnt with the place of each hint, whose part in it adds; asked for chances, it is held
at the first place. On the validation days P = sigmoid(exp(a) z + b) is fitted (Platt 1999): it rises strictly with z,
so two queries that the network tells apart never have the same chance, which steps (isotonic regression) would give.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from common.config import parse_config
from common.query_text import normalised
from training.core.checkpoint import load_weights, places, save_weights
from training.core.errors import DataError
from training.core.files import write_json
from training.core.stage import MetricsLog
from training.core.steps import Steps, drawn
from training.query_rec.calibration import Doubles, Platt, calibrated_loss
from training.query_rec.hashed_text import Ints
from training.query_rec.hint_examples import Examples, Hints
from training.query_rec.hint_linear import Linear
from training.query_rec.hint_network import Batch, Network, NetworkConfig, hiding
from training.query_rec.hint_questions import NAMES, OF_QUERY, Floats, Questions
from training.query_rec.people import Person

_WEIGHTS, _FACTS, _KNOWN, _PHRASES = "ranker.safetensors", "ranker.json", "queries.parquet", "phrases.parquet"
_AGAIN = "train it again, or roll back to a version of this build"
_HIDDEN, _HIDDEN_OF_FIT, _PAIRS_AT_ONCE = 1, 2, 4096


@dataclass(frozen=True)
class TrainingConfig:
    """Batches are of `requests`. At the start and every `check_steps` the log loss of the validation days is
    measured, calibrated on them, and after `patience` checks without a lower one it ends; kept are the weights of the
    lowest. `hidden`: of such a share of hints the query's numbers are not told, and of as many the person's (INFERRED).
    """

    epochs: int = 6
    requests: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    hidden: float = 0.3
    check_steps: int = 50
    patience: int = 5


@dataclass(frozen=True)
class Facts:
    """What a ranker knows of itself. `until`: the newest day that it has learnt of (ISO); `share`: of training hints
    clicked; `names`: its numbers, in their order."""

    until: str
    share: float
    network: NetworkConfig
    calibration: Platt
    names: tuple[str, ...] = NAMES
    started_from: str | None = None
    steps: int = 0


@dataclass(frozen=True, eq=False)
class HintRanker:
    """`known`: what the feature store said of queries at the end of the training days, [OF_QUERY] each; `phrases` of
    the catalogue's items."""

    network: Network
    facts: Facts
    known: Mapping[str, Floats] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """The newest training day and a digest of weights and calibration: what stands beside each reward."""
        digest = hashlib.sha256(json.dumps(asdict(self.facts), sort_keys=True).encode())
        for name, weight in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + weight.detach().cpu().numpy().tobytes())
        return f"{self.facts.until}-{digest.hexdigest()[:12]}"

    def chances(self, people: Sequence[Person], queries: Sequence[Sequence[str]]) -> list[Floats]:
        """The chance that each person clicks on each of their `queries` at the first place: any text, [queries] each.

        Of an item that is not in the catalogue, and of words that nobody typed, nothing is known, and that is no error.
        What the store says of queries is that of the ranker's own days.
        """
        asked = [[normalised(query) for query in own] for own in queries]
        config = self.facts.network
        told = Questions.of(people, asked, self.known, self.phrases, config.length, config.buckets, self.facts.share)
        found = self.facts.calibration(self.logits(told)).astype(np.float32)
        return list(np.split(found, np.cumsum([len(own) for own in queries])[:-1])) if len(people) else []

    def chances_of(self, questions: Questions) -> Doubles:
        """Of each pair at its own place: [n]."""
        return self.facts.calibration(self.logits(questions))

    def logits(self, questions: Questions) -> Doubles:
        """Before calibration: [n]."""
        return logits_of(self.network, questions)

    def save(self, folder: Path) -> None:
        """Write what `load` reads: tensors, JSON, and two small tables."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}, folder / _WEIGHTS
        )
        write_json(folder / _FACTS, asdict(self.facts))
        numbers = np.array(list(self.known.values()), dtype=np.float32).reshape(-1, len(OF_QUERY))
        table = {"query": pa.array(list(self.known), pa.string())}
        pq.write_table(pa.table(table | {name: numbers[:, n] for n, name in enumerate(OF_QUERY)}), folder / _KNOWN)
        items = {"item_id": list(self.phrases), "phrase": list(self.phrases.values())}
        pq.write_table(pa.table(items, pa.schema(dict.fromkeys(items, pa.string()))), folder / _PHRASES)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it. Raises DataError for a folder that is none, and for one of another build: of other numbers than are
        counted now, or of another network."""
        path = Path(folder)
        if not (path / _FACTS).is_file():
            raise DataError(
                "the folder holds no hint ranker", where=str(path), do="name the folder that the stage hint_ranker left"
            )
        facts = parse_config(Facts, json.loads((path / _FACTS).read_text()), str(path / _FACTS))
        if facts.names != NAMES:
            raise DataError("the hint ranker reads other numbers than are counted now", where=str(path), do=_AGAIN)
        network, weights = Network(facts.network), load_file(path / _WEIGHTS)
        shapes, found = ({name: one.shape for name, one in own.items()} for own in (network.state_dict(), weights))
        if shapes != found:
            raise DataError("the hint ranker is of another network than is built now", where=str(path), do=_AGAIN)
        network.load_state_dict(weights)
        network.eval()
        rows = pq.read_table(path / _KNOWN)
        numbers = np.stack([rows[name].to_numpy() for name in OF_QUERY], axis=1)
        items = pq.read_table(path / _PHRASES)
        phrases = dict(zip(items["item_id"].to_pylist(), items["phrase"].to_pylist(), strict=True))
        return cls(network.to(_device()), facts, dict(zip(rows["query"].to_pylist(), numbers, strict=True)), phrases)


@dataclass(frozen=True, eq=False)
class Training:
    """Learns from the training days, stops and calibrates on the validation days; `run` names it for its checkpoints
    in `folder`."""

    hints: Hints
    network: NetworkConfig
    config: TrainingConfig
    seed: int
    folder: Path
    run: str

    def train(self, until: date, start: HintRanker | None) -> tuple[HintRanker, int | None]:
        """The ranker, and the step that the run went on from; with a `start` from its weights.

        The linear part is fitted anew to these days, also with a `start`, of which the rest goes on. The validation
        days choose from all that training comes by: the `start` as it was, the linear part alone, and what is learnt.
        """
        train, valid = self.hints.parts["train"], self.hints.parts["valid"]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = Network(self.network)
        network.measure(train.questions.numbers)
        if start is not None:
            # The numbers are measured as of then: weights that were learnt on them stay true.
            network.load_state_dict(start.network.state_dict())
        network.to(_device())
        done, resumed = self._steps(network, train, valid, started=start is not None)
        network.eval()
        calibration = Platt.of(logits_of(network, valid.questions), valid.clicked)
        started = start.version if start is not None else None
        facts = Facts(until.isoformat(), self.hints.share, self.network, calibration, NAMES, started, done)
        return HintRanker(network, facts, phrases=self.hints.phrases), resumed

    def _steps(self, network: Network, train: Examples, valid: Examples, *, started: bool) -> tuple[int, int | None]:
        config, log = self.config, MetricsLog(self.folder / "metrics.jsonl")
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = Steps(self.folder, self.run, network, optimizer, config.check_steps)
        best = places(self.folder)[1]
        resumed = steps.resume()
        log.rewind(-1 if resumed is None else resumed)
        notes, requests = steps.notes, train.by_request()
        each = math.ceil(len(requests) / config.requests)
        total = config.epochs * each

        def check(number: int, **values: float) -> None:
            network.eval()
            found = calibrated_loss(logits_of(network, valid.questions), valid.clicked)
            log.append(number, **values, valid_log_loss=found)
            if found < notes["best"]:
                notes.update(best=found, best_step=number, worse=0)
                save_weights(network, best)
            else:
                notes["worse"] += 1
                notes["enough"] = notes["worse"] >= config.patience

        def step(number: int) -> float:
            epoch, place = divmod(number, each)
            order = torch.randperm(len(requests), generator=drawn(self.seed, epoch))
            own = order[place * config.requests : (place + 1) * config.requests].tolist()
            loss = self._step(network, optimizer, train.chosen(np.concatenate([requests[one] for one in own])), number)
            if (number + 1) % config.check_steps == 0 or number + 1 == total:
                check(number + 1, loss=loss)
            return loss

        if resumed is None:
            notes |= {"best": math.inf, "best_step": 0, "worse": 0}
            rest = network.out.weight.detach().clone()
            if started:
                check(0)
            hidden = hiding(len(train), config.hidden, drawn(self.seed, 0, _HIDDEN_OF_FIT)).numpy()
            network.begin(Linear.fit(train, valid, network.quantiles, hidden))
            check(0)
            if started:
                with torch.no_grad():
                    network.out.weight.copy_(rest)
                check(0)
            notes.update(worse=0, enough=False)
        steps.run(total, "hint ranker", step)
        load_weights(network, best)
        return int(notes["best_step"]), resumed

    def _step(self, network: Network, optimizer: torch.optim.Optimizer, own: Examples, number: int) -> float:
        network.train()
        batch = Batch.of(own.questions, network.quantiles, _device())
        hidden = hiding(len(own), self.config.hidden, drawn(self.seed, number, _HIDDEN)).to(batch.numbers.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed * 1_000_003 + number)  # of the dropout: a resumed run draws the same
            logits = network(batch, hidden)
        clicked = torch.from_numpy(own.clicked.astype(np.float32)).to(logits.device)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, clicked)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.max_grad_norm)
        optimizer.step()
        return float(loss.detach())


def logits_of(network: Network, questions: Questions) -> Doubles:
    """What the network says of each pair: [n]."""
    parts, quantiles = [np.zeros(0)], network.quantiles
    with torch.inference_mode():
        for rows in _portions(len(questions)):
            logits = network(Batch.of(questions.chosen(rows), quantiles, _device()))
            parts.append(logits.cpu().numpy().astype(np.float64))
    return np.concatenate(parts)


def _portions(size: int) -> Iterator[Ints]:
    for start in range(0, size, _PAIRS_AT_ONCE):
        yield np.arange(start, min(start + _PAIRS_AT_ONCE, size))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
