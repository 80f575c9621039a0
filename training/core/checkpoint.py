"""Checkpoints that are either whole or not there, and from which a run goes on bit for bit (on the CPU).

A checkpoint holds the trainable weights and the optimizer's state (safetensors, never pickle), the random state, and
the loop's cursor as JSON. It is written to a scratch folder, synced, and renamed over the one before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from training.core.errors import DataError
from training.core.files import new_folder, write_json


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: weights (shared ones once) and persistent buffers, such as running means."""
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                weights[name] = buffer
    return weights


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the trainable weights to `file`."""
    save_file({name: weight.contiguous() for name, weight in trainable(model).items()}, file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Put the weights of `file` into `model`; DataError if the file is broken or of another model."""
    stored, own = read_tensors(file), trainable(model)
    if {name: weight.shape for name, weight in stored.items()} != {name: weight.shape for name, weight in own.items()}:
        raise DataError(
            "the checkpoint is of another model or vocabulary", where=str(file), do="remove it to start afresh"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(stored[name])


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of it where each process has a shard; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_held(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor where `like` is sharded, else all of it; every process must ask."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, cursor: dict[str, Any], *, write: bool = True
) -> None:
    """Write the whole state of a run to `folder`, replacing the checkpoint that is there.

    All processes call it, as each may hold a shard of the optimizer's state; one of them is to `write`.
    """
    state = optimizer.state_dict()["state"]
    moments = {f"{number}.{name}": whole(value) for number, entry in state.items() for name, value in entry.items()}
    if not write:
        return
    with new_folder(folder) as scratch:
        save_weights(model, scratch / "weights.safetensors")
        save_file(moments, scratch / "optimizer.safetensors")
        save_file(_random_state(), scratch / "random.safetensors")
        write_json(scratch / "cursor.json", cursor)


def read_cursor(folder: Path) -> dict[str, Any] | None:
    """The cursor of the checkpoint in `folder`; None if there is no checkpoint."""
    if not folder.is_dir():
        return None
    cursor: dict[str, Any] = json.loads((folder / "cursor.json").read_text())
    return cursor


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore weights, optimizer and random state; DataError if a file is broken or of another model."""
    load_weights(model, folder / "weights.safetensors")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in read_tensors(folder / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        held = as_held(value, weights[int(number)]) if value.ndim else value
        state.setdefault(int(number), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _restore_random_state(read_tensors(folder / "random.safetensors"))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; DataError if it is missing or truncated."""
    try:
        stored: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(
            "a file of weights is missing or broken",
            where=str(file),
            why=str(error),
            do="remove it and run the stage that wrote it again",
        ) from error
    return stored


def _random_state() -> dict[str, Tensor]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {"cpu": torch.get_rng_state(), **{f"cuda.{n}": torch.cuda.get_rng_state(n) for n in devices}}


def _restore_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    for name, value in state.items():
        if name != "cpu":
            torch.cuda.set_rng_state(value, int(name.removeprefix("cuda.")))
