"""Checkpoints that are either whole or not there, and from which a run goes on bit for bit (on the CPU).

A checkpoint holds the trainable weights and the optimizer's state (safetensors, never pickle), the random state of each
process, and the loop's cursor as JSON. It is written to a scratch folder, synced, and put in the place of the last.
Where the processes hold shards the one that writes gathers them on its CPU, and each reads back its own: a checkpoint
does not depend on how many processes there were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.core.errors import DataError
from training.core.files import found, new_folder, write_json
from training.core.shards import as_held, gathered
from training.core.stage import CHECKPOINTS, is_main_process


def places(folder: Path) -> tuple[Path, Path]:
    """Where a training in `folder` keeps its last checkpoint (a folder) and its best weights (a file)."""
    return folder / CHECKPOINTS / "last", folder / CHECKPOINTS / "best.safetensors"


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: weights (shared ones once) and persistent buffers, such as running means."""
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                weights[name] = buffer
    return weights


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the trainable weights to `file`; every process must call it, one writes."""
    weights = gathered(trainable(model), keep=is_main_process())
    if is_main_process():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Put the weights of `file` into `model`; DataError if the file is broken or of another model."""
    own = trainable(model)
    with _opened(file) as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
        if shapes != {name: tuple(weight.shape) for name, weight in own.items()}:
            raise DataError(
                "the checkpoint is of another model or vocabulary", where=str(file), do="remove it to start afresh"
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(as_held(stored.get_tensor(name), weight))


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, cursor: dict[str, Any]) -> None:
    """Write the whole state of a run to `folder`, replacing the checkpoint that is there.

    Every process must call it, and comes back when all is written: one that ended before would have the rest stopped.
    """
    state = optimizer.state_dict()["state"]
    moments = {f"{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}
    files = {
        name: gathered(tensors, keep=is_main_process())
        for name, tensors in (("weights", trainable(model)), ("optimizer", moments))
    }
    files["random"] = {name: value for part in gather_object([_random_state()]) for name, value in part.items()}
    if is_main_process():
        with new_folder(folder) as scratch:
            for name, tensors in files.items():
                save_file(tensors, scratch / f"{name}.safetensors")
            write_json(scratch / "cursor.json", cursor)
    PartialState().wait_for_everyone()


def read_cursor(folder: Path) -> dict[str, Any] | None:
    """The cursor of the checkpoint in `folder`; None if there is no checkpoint."""
    if not found(folder).is_dir():
        return None
    cursor: dict[str, Any] = json.loads((folder / "cursor.json").read_text())
    return cursor


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore weights, optimizer and random state; DataError if a file is broken or of another model."""
    load_weights(model, folder / "weights.safetensors")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    with _opened(folder / "optimizer.safetensors") as stored:
        for key in stored.keys():  # noqa: SIM118
            number, name = key.split(".", 1)
            value = stored.get_tensor(key)
            held = as_held(value, weights[int(number)]) if value.ndim else value
            state.setdefault(int(number), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    random = read_tensors(folder / "random.safetensors")
    restore: dict[str, Callable[[Tensor], None]] = {"cpu": torch.set_rng_state, "cuda": torch.cuda.set_rng_state}
    # A process that was not there before keeps its own random state.
    for name in random.keys() & _random_state().keys():
        restore[name.split(".")[1]](random[name])


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; DataError if it is missing or truncated."""
    with _opened(file) as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file whose tensors are read when they are asked for."""
    try:
        stored = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise DataError(
            "a file of weights is missing or broken",
            where=str(file),
            why=str(error),
            do="remove it and run the stage that wrote it again",
        ) from error
    with stored:
        yield stored


def _random_state() -> dict[str, Tensor]:
    """This process's, under names of its own."""
    own = {"cpu": torch.get_rng_state(), **({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})}
    return {f"{PartialState().process_index}.{device}": state for device, state in own.items()}
